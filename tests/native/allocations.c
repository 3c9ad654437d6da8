/* What the library takes from the system, for the address sanitizer: `allocations CHECK FILE`. Linked so that its
 * calls of these functions come here first (ld's --wrap). */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include "check.h"

static int64_t calls, failing = -1; /* which call gives nothing */
static int64_t mappings;            /* that were not given back */

static int denied(void) { return calls++ == failing; }

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size) { return denied() ? NULL : __real_malloc(size); }

void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size) { return denied() ? NULL : __real_calloc(count, size); }

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument) {
  return denied() ? EAGAIN : __real_pthread_create(thread, attributes, run, argument);
}

void *__real_mmap(void *address, size_t size, int protection, int flags, int file, off_t offset);
void *__wrap_mmap(void *address, size_t size, int protection, int flags, int file, off_t offset) {
  errno = ENOMEM;
  void *memory = denied() ? MAP_FAILED : __real_mmap(address, size, protection, flags, file, offset);
  mappings += memory != MAP_FAILED;
  return memory;
}

int __real_munmap(void *address, size_t size);
int __wrap_munmap(void *address, size_t size) {
  mappings--;
  return __real_munmap(address, size);
}

/* ---- Checks --------------------------------------------------------------------------------------------------- */

enum { THREADS = 3 };

static slm_error error;
static int32_t ids[MOST_IDS];

/* NULL where a call was denied, which `error` then tells. */
static slm_session *begun(const char *path, slm_model **model) {
  const slm_session_options options = {0, THREADS};
  slm_session *session = NULL;
  if (slm_open(path, NULL, model, &error) == SLM_OK)
    slm_session_new(*model, &options, &session, &error);
  return session;
}

static void none_while_reading(const char *path) {
  slm_model *model;
  slm_model_info info;
  slm_session *session = begun(path, &model);
  const size_t lengths[] = {2, 3};
  int32_t top[5];
  float logprobs[5];
  CHECK(session && calls >= 8 && mappings == 2);
  slm_model_info_get(model, &info);
  const int64_t before = calls;
  CHECK(slm_prefill(session, some_ids(info.vocab_size, ids), 150) == SLM_OK && slm_decode(session, 1) == SLM_OK);
  CHECK(slm_top_k(session, 5, top, logprobs) == SLM_OK);
  CHECK(slm_continuations(session, ids, lengths, 2, logprobs) == SLM_OK);
  CHECK(slm_decode(session, -1) == SLM_BAD_ARGUMENT && slm_rewind(session, 1) == SLM_OK);
  slm_cancel(session);
  CHECK(slm_decode(session, 1) == SLM_CANCELLED && slm_prefill(session, ids, MOST_IDS) == SLM_CONTEXT_FULL);
  CHECK(calls == before);
  slm_session_free(session);
  slm_close(model);
  CHECK(mappings == 0);
}

/* Each call in turn gives nothing: that is told, and all that was taken is given back. */
static void denied_one_by_one(const char *path) {
  for (failing = 0;; failing++) {
    calls = 0;
    slm_model *model;
    slm_session *session = begun(path, &model);
    const int64_t begun_with = calls;
    if (session)
      CHECK(failing == begun_with && failing >= 8 && slm_decode(session, 1) == SLM_OK);
    else
      CHECK((error.status == SLM_NO_MEMORY || error.status == SLM_NO_FILE) && error.text[0]);
    slm_session_free(session);
    slm_close(model);
    CHECK(mappings == 0);
    if (failing == begun_with)
      return;
  }
}

/* The sanitizer finds what was taken by malloc alone. */
static void hundred(const char *path) {
  slm_model *model;
  for (int i = 0; i < 100; i++) {
    slm_session *session = begun(path, &model);
    CHECK(session && mappings == 2 && slm_prefill(session, some_ids(33, ids), 20) == SLM_OK);
    slm_session_free(session);
    CHECK(mappings == 1);
    slm_close(model);
    CHECK(mappings == 0);
  }
}

int main(int argc, char **argv) {
  CHECK(argc == 3);
  if (!strcmp(argv[1], "none_while_reading"))
    none_while_reading(argv[2]);
  else if (!strcmp(argv[1], "denied_one_by_one"))
    denied_one_by_one(argv[2]);
  else if (!strcmp(argv[1], "hundred"))
    hundred(argv[2]);
  else
    return 2;
  return 0;
}
