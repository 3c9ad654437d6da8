/* The whole interface of slm.h over one weight file, for the address and undefined-behaviour sanitizers:
 * `interface CHECK FILE`. */
#include <string.h>
#include <sys/resource.h>

#include "check.h"

static const char *path;
static slm_error error;
static slm_model_info info;
static int32_t ids[MOST_IDS];

static slm_model *opened(const char *kernels) {
  const slm_open_options options = {1, kernels};
  slm_model *model;
  CHECK(slm_open(path, &options, &model, &error) == SLM_OK && error.status == SLM_OK && !error.text[0]);
  slm_model_info_get(model, &info);
  some_ids(info.vocab_size, ids);
  return model;
}

static slm_session *begun(const slm_model *model, int32_t context, int32_t threads) {
  const slm_session_options options = {context, threads};
  slm_session *session;
  CHECK(slm_session_new(model, &options, &session, &error) == SLM_OK && slm_position(session) == 0);
  CHECK(!slm_logits(session));
  return session;
}

/* The session's logits are those of another session that reads the first `count` ids at once. */
static int same_logits(const slm_model *model, const slm_session *session, size_t count) {
  slm_session *other = begun(model, 0, 2);
  CHECK(slm_prefill(other, ids, count) == SLM_OK);
  const int same = !memcmp(slm_logits(other), slm_logits(session), (size_t)info.vocab_size * sizeof(float));
  slm_session_free(other);
  return same;
}

static int refused(const slm_session *session, slm_status status, slm_status wanted, const char *text) {
  return status == wanted && strstr(slm_error_text(session), text) != NULL;
}

/* ---- Checks --------------------------------------------------------------------------------------------------- */

/* With all kernels, whichever the file asks for: one session to the end of its context. */
static void reading(void) {
  CHECK(slm_version() >> 16 == SLM_VERSION_MAJOR && slm_kernels(0) && !slm_kernels(1000));
  for (size_t i = 0; slm_kernels(i); i++) {
    slm_model *model = opened(slm_kernels(i));
    CHECK(!strcmp(info.kernels, slm_kernels(i)) && info.context == MOST_IDS);
    slm_session *session = begun(model, 0, 1 + (int32_t)i % 3);
    CHECK(slm_prefill(session, ids, 150) == SLM_OK && slm_position(session) == 150 && same_logits(model, session, 150));
    CHECK(slm_rewind(session, 7) == SLM_OK && !slm_logits(session) && slm_position(session) == 7);
    for (size_t next = 7; next < MOST_IDS; next++)
      CHECK(slm_decode(session, ids[next]) == SLM_OK);
    CHECK(same_logits(model, session, MOST_IDS));
    CHECK(refused(session, slm_decode(session, 0), SLM_CONTEXT_FULL, "don't fit") && slm_position(session) == MOST_IDS);
    CHECK(slm_rewind(session, 0) == SLM_OK);
    CHECK(refused(session, slm_prefill(session, ids, SIZE_MAX), SLM_CONTEXT_FULL, "don't fit"));
    slm_stats stats;
    slm_stats_get(session, &stats);
    CHECK(stats.prefill_tokens == 150 && stats.decode_tokens == MOST_IDS - 7 && stats.memory_bytes);
    slm_session_free(session);
    slm_close(model);
  }
}

/* Contexts that are no whole tile of anything, each filled. */
static void contexts(void) {
  slm_model *model = opened(NULL);
  for (int32_t context = 1; context <= MOST_IDS; context += context < 20 ? 1 : 36) {
    slm_session *session = begun(model, context, 1);
    CHECK(slm_prefill(session, ids, (size_t)context) == SLM_OK && slm_decode(session, 0) == SLM_CONTEXT_FULL);
    CHECK(same_logits(model, session, (size_t)context));
    slm_session_free(session);
  }
  slm_close(model);
}

static void answers(void) {
  slm_model *model = opened(NULL);
  slm_session *session = begun(model, 20, 1);
  const size_t vocab = (size_t)info.vocab_size, lengths[] = {1, 3, 1, 2};
  int32_t *top = malloc(vocab * sizeof *top);
  float *logprobs = malloc(vocab * sizeof *logprobs), found[4];
  CHECK(top && logprobs);
  CHECK(slm_prefill(session, ids, 10) == SLM_OK);
  for (size_t k = 1; k <= vocab; k += vocab / 3) {
    CHECK(slm_top_k(session, k, top, logprobs) == SLM_OK);
    for (size_t i = 0; i < k; i++)
      CHECK(slm_logits(session)[top[i]] <= slm_logits(session)[top[0]] && logprobs[i] <= (i ? logprobs[i - 1] : 0));
  }
  CHECK(slm_continuations(session, ids, lengths, 4, found) == SLM_OK && slm_position(session) == 10);
  CHECK(slm_continuations(session, ids, lengths, 0, found) == SLM_OK && same_logits(model, session, 10));
  CHECK(slm_top_k(session, 1, top, logprobs) == SLM_OK);
  const size_t one = 1;
  CHECK(slm_continuations(session, top, &one, 1, found) == SLM_OK && found[0] == logprobs[0]);
  free(top);
  free(logprobs);
  slm_session_free(session);
  slm_close(model);
}

static void cancelled(void) {
  slm_model *model = opened(NULL);
  slm_session *session = begun(model, 0, 2);
  CHECK(slm_prefill(session, ids, 10) == SLM_OK);
  slm_cancel(session);
  CHECK(refused(session, slm_prefill(session, ids + 10, 140), SLM_CANCELLED, "cancelled"));
  CHECK(slm_position(session) == 10 && !slm_logits(session));
  CHECK(slm_prefill(session, ids + 10, 1) == SLM_OK && same_logits(model, session, 11));
  const size_t length = 3;
  float logprob;
  slm_cancel(session);
  CHECK(slm_continuations(session, ids, &length, 1, &logprob) == SLM_CANCELLED);
  CHECK(slm_position(session) == 11 && same_logits(model, session, 11));
  slm_session_free(session);
  slm_close(model);
}

/* The last token of a file with a head of its own has an infinite embedding. */
static void numbers(void) {
  for (size_t i = 0; slm_kernels(i); i++) {
    slm_model *model = opened(slm_kernels(i));
    slm_session *session = begun(model, 0, 1);
    const int32_t last[] = {1, info.vocab_size - 1, 2};
    const size_t length = 3;
    float logprob;
    CHECK(slm_prefill(session, ids, 3) == SLM_OK);
    CHECK(slm_continuations(session, last, &length, 1, &logprob) == SLM_BAD_NUMBERS && slm_position(session) == 3);
    CHECK(refused(session, slm_prefill(session, last, 3), SLM_BAD_NUMBERS, "no numbers"));
    CHECK(slm_position(session) == 3 && !slm_logits(session));
    /* What it left in the cache behind the position is never seen. */
    CHECK(slm_prefill(session, ids + 3, 2) == SLM_OK && same_logits(model, session, 5));
    slm_session_free(session);
    slm_close(model);
  }
}

static void wrong_arguments(void) {
  slm_model *model = opened(NULL), *none = model;
  CHECK(slm_open(NULL, NULL, &none, &error) == SLM_BAD_ARGUMENT && error.text[0] && !none);
  CHECK(slm_open(path, NULL, NULL, NULL) == SLM_BAD_ARGUMENT);
  const slm_open_options unknown = {0, "avx9000"};
  none = model;
  CHECK(slm_open(path, &unknown, &none, &error) == SLM_BAD_CPU && strstr(error.text, "avx9000") && !none);
  CHECK(slm_open(path, &unknown, &none, NULL) == SLM_BAD_CPU);
  slm_session *session = NULL, *never = (slm_session *)model;
  CHECK(slm_session_new(NULL, NULL, &never, &error) == SLM_BAD_ARGUMENT && error.text[0] && !never);
  CHECK(slm_session_new(model, NULL, NULL, NULL) == SLM_BAD_ARGUMENT);
  const slm_session_options wrong[] = {{-1, 1}, {INT32_MIN, 1}, {MOST_IDS + 1, 1}, {0, -1}, {0, 257}, {0, INT32_MAX}};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    never = (slm_session *)model;
    CHECK(slm_session_new(model, &wrong[i], &never, &error) == SLM_BAD_ARGUMENT && error.text[0] && !never);
  }
  session = begun(model, 9, 0);
  int32_t top;
  float logprob;
  const size_t length = 1, lengths[] = {1, 0}, too_long = 9;
  CHECK(slm_top_k(session, 1, &top, &logprob) == SLM_BAD_ARGUMENT);
  CHECK(refused(session, slm_continuations(session, ids, &length, 1, &logprob), SLM_BAD_ARGUMENT, "need logits"));
  CHECK(refused(session, slm_prefill(session, ids, 0), SLM_BAD_ARGUMENT, "no tokens"));
  CHECK(refused(session, slm_prefill(session, NULL, 1), SLM_BAD_ARGUMENT, "no tokens"));
  const int32_t outside[] = {info.vocab_size, -1, INT32_MAX, INT32_MIN};
  for (size_t i = 0; i < 4; i++)
    CHECK(refused(session, slm_decode(session, outside[i]), SLM_BAD_ARGUMENT, "outside the vocabulary"));
  CHECK(slm_position(session) == 0 && slm_prefill(session, ids, 3) == SLM_OK);
  CHECK(slm_top_k(session, 0, &top, &logprob) == SLM_BAD_ARGUMENT);
  CHECK(slm_top_k(session, (size_t)info.vocab_size + 1, &top, &logprob) == SLM_BAD_ARGUMENT);
  CHECK(slm_top_k(session, 1, NULL, &logprob) == SLM_BAD_ARGUMENT);
  CHECK(slm_top_k(session, 1, &top, NULL) == SLM_BAD_ARGUMENT);
  CHECK(slm_continuations(session, NULL, &length, 1, &logprob) == SLM_BAD_ARGUMENT);
  CHECK(slm_continuations(session, ids, NULL, 1, &logprob) == SLM_BAD_ARGUMENT);
  CHECK(slm_continuations(session, ids, &length, 1, NULL) == SLM_BAD_ARGUMENT);
  CHECK(slm_continuations(session, ids, lengths, 2, &logprob) == SLM_BAD_ARGUMENT);
  CHECK(slm_continuations(session, outside, &length, 1, &logprob) == SLM_BAD_ARGUMENT);
  CHECK(slm_continuations(session, ids, &too_long, 1, &logprob) == SLM_CONTEXT_FULL);
  CHECK(refused(session, slm_rewind(session, 4), SLM_BAD_ARGUMENT, "rewind to 4"));
  CHECK(slm_position(session) == 3 && slm_decode(session, ids[3]) == SLM_OK && same_logits(model, session, 4));
  slm_session_free(session);
  slm_session_free(NULL);
  slm_close(model);
  slm_close(NULL);
}

/* A session leaves when it has read, and also before its threads have begun. */
static void hundred(void) {
  const struct rlimit few = {32, 32};
  CHECK(!setrlimit(RLIMIT_NOFILE, &few)); /* a model keeps no file open */
  slm_model *model = opened(NULL);
  for (int32_t i = 0; i < 100; i++) {
    slm_session *session = begun(model, 0, 1 + i % 4);
    CHECK(i % 2 || slm_prefill(session, ids, 20) == SLM_OK);
    slm_session_free(session);
    slm_close(opened(NULL));
  }
  slm_close(model);
}

/* `path` is none that can be mapped. */
static void no_file(void) {
  slm_model *model = (slm_model *)&error;
  CHECK(slm_open(path, NULL, &model, &error) == SLM_NO_FILE && error.status == SLM_NO_FILE && !model);
  CHECK(memchr(error.text, 0, sizeof error.text) && error.text[0]);
  CHECK(slm_open(path, NULL, &model, NULL) == SLM_NO_FILE);
  puts(error.text);
}

/* `path` is a file that is refused, where `verify` is asked for. */
static void bad_file(void) {
  const slm_open_options verify = {1, NULL};
  slm_model *model = (slm_model *)&error;
  CHECK(slm_open(path, &verify, &model, &error) == SLM_BAD_FILE && error.status == SLM_BAD_FILE && !model);
  CHECK(slm_open(path, &verify, &model, NULL) == SLM_BAD_FILE);
  puts(error.text);
}

int main(int argc, char **argv) {
  static const struct {
    const char *name;
    void (*check)(void);
  } checks[] = {{"reading", reading},   {"contexts", contexts}, {"answers", answers},
                {"cancelled", cancelled}, {"numbers", numbers},   {"wrong_arguments", wrong_arguments},
                {"hundred", hundred},   {"no_file", no_file},   {"bad_file", bad_file}};
  CHECK(argc == 3);
  path = argv[2];
  for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
    if (!strcmp(checks[i].name, argv[1])) {
      checks[i].check();
      return 0;
    }
  }
  return 2;
}
