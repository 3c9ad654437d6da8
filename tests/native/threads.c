/* Threads within a session, sessions beside each other and a call that is cancelled, for the thread sanitizer:
 * `threads FILE`. */
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "check.h"

enum { PROMPT = 140, MOST_VOCAB = 256, BESIDE = 3, CANCELS = 30 };

static const slm_model *model;
static int32_t vocab, ids[MOST_IDS];
static float wanted[MOST_VOCAB]; /* after all ids, by one thread */

static slm_session *begun(int32_t threads) {
  const slm_session_options options = {0, threads};
  slm_session *session;
  CHECK(slm_session_new(model, &options, &session, NULL) == SLM_OK);
  return session;
}

static void read_all(slm_session *session) {
  CHECK(slm_prefill(session, ids, PROMPT) == SLM_OK);
  for (int32_t i = PROMPT; i < PROMPT + 10; i++)
    CHECK(slm_decode(session, ids[i]) == SLM_OK);
}

static int as_wanted(const slm_session *session) {
  return !memcmp(slm_logits(session), wanted, (size_t)vocab * sizeof *wanted);
}

static void sleep_briefly(long nanoseconds) {
  const struct timespec time = {0, nanoseconds};
  nanosleep(&time, NULL);
}

static void threads_in_a_session(void) {
  for (int32_t threads = 1; threads <= 4; threads++) {
    slm_session *session = begun(threads);
    for (int round = 0; round < 2; round++) {
      CHECK(slm_rewind(session, 0) == SLM_OK);
      read_all(session);
      CHECK(as_wanted(session));
      sleep_briefly(1000000); /* its threads go to sleep */
    }
    slm_session_free(session);
    slm_session_free(begun(threads));
  }
}

static void *beside(void *unused) {
  (void)unused;
  for (int round = 0; round < 2; round++) {
    slm_session *session = begun(2);
    slm_model_info info;
    slm_model_info_get(model, &info);
    read_all(session);
    CHECK(as_wanted(session) && info.vocab_size == vocab);
    slm_session_free(session);
  }
  return NULL;
}

static void sessions_beside_each_other(void) {
  pthread_t threads[BESIDE];
  for (int i = 0; i < BESIDE; i++)
    CHECK(!pthread_create(&threads[i], NULL, beside, NULL));
  for (int i = 0; i < BESIDE; i++)
    pthread_join(threads[i], NULL);
}

static atomic_int reading;
static atomic_long delay;

static void *cancel(void *session) {
  while (!atomic_load(&reading))
    sleep_briefly(1000);
  sleep_briefly(atomic_load(&delay));
  slm_cancel(session);
  return NULL;
}

/* Sooner and later in a call that reads two chunks of tokens. */
static void cancelled_while_reading(void) {
  slm_session *session = begun(2);
  slm_stats stats;
  CHECK(slm_prefill(session, ids, MOST_IDS) == SLM_OK);
  slm_stats_get(session, &stats);
  for (int i = 0; i < CANCELS; i++) {
    pthread_t thread;
    slm_status status;
    atomic_store(&reading, 0);
    atomic_store(&delay, (long)stats.prefill_nanoseconds * i / CANCELS);
    CHECK(slm_rewind(session, 0) == SLM_OK && slm_prefill(session, ids, 5) == SLM_OK);
    CHECK(!pthread_create(&thread, NULL, cancel, session));
    atomic_store(&reading, 1);
    do {
      CHECK(slm_rewind(session, 5) == SLM_OK);
      status = slm_prefill(session, ids + 5, MOST_IDS - 5);
    } while (status == SLM_OK);
    pthread_join(thread, NULL);
    CHECK(status == SLM_CANCELLED && slm_position(session) == 5 && !slm_logits(session));
  }
  CHECK(slm_rewind(session, 0) == SLM_OK);
  read_all(session);
  CHECK(as_wanted(session));
  slm_session_free(session);
}

int main(int argc, char **argv) {
  slm_model *opened;
  slm_model_info info;
  CHECK(argc == 2 && slm_open(argv[1], NULL, &opened, NULL) == SLM_OK);
  model = opened;
  slm_model_info_get(model, &info);
  vocab = info.vocab_size;
  CHECK(vocab <= MOST_VOCAB);
  some_ids(vocab, ids);
  slm_session *session = begun(1);
  read_all(session);
  memcpy(wanted, slm_logits(session), (size_t)vocab * sizeof *wanted);
  slm_session_free(session);
  threads_in_a_session();
  sessions_beside_each_other();
  cancelled_while_reading();
  slm_close(opened);
  return 0;
}
