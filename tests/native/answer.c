/* Reads and answers as its arguments tell, for tests that run the library's objects on another CPU:
 *
 *     answer FILE KERNELS THREADS OPERATION...
 *
 * KERNELS may be "best". An operation is "read:1,2,3" or "rewind:2". Prints the kernels' name, then the logits after
 * each operation that reads, as one line of C's hexadecimal floats. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "slm.h"

enum { MOST_IDS = 4096 };

/* As Android's libc calls it: objects for Android run with another libc here. */
int *__errno(void);
int *__errno(void) { return &errno; }

static void stop(const char *text) {
  fprintf(stderr, "%s\n", text);
  exit(1);
}

static size_t parse_ids(char *text, int32_t *ids) {
  size_t count = 0;
  for (char *end = text; *end && count < MOST_IDS; end += *end == ',')
    ids[count++] = (int32_t)strtol(end, &end, 10);
  return count;
}

static void read_ids(slm_session *session, char *text, int32_t vocab_size) {
  static int32_t ids[MOST_IDS];
  const size_t count = parse_ids(text, ids);
  if (count == 1 ? slm_decode(session, ids[0]) : slm_prefill(session, ids, count))
    stop(slm_error_text(session));
  const float *logits = slm_logits(session);
  for (int32_t i = 0; i < vocab_size; i++)
    printf(i ? " %a" : "%a", (double)logits[i]);
  puts("");
}

int main(int count, char **arguments) {
  if (count < 4)
    stop("answer FILE KERNELS THREADS OPERATION...");
  const slm_open_options options = {.verify = 1, .kernels = strcmp(arguments[2], "best") ? arguments[2] : NULL};
  const slm_session_options wanted = {.threads = (int32_t)atoi(arguments[3])};
  slm_error error;
  slm_model *model;
  slm_session *session;
  if (slm_open(arguments[1], &options, &model, &error) || slm_session_new(model, &wanted, &session, &error))
    stop(error.text);
  slm_model_info info;
  slm_model_info_get(model, &info);
  puts(info.kernels);
  for (char **operation = arguments + 4; *operation; operation++) {
    char *value = strchr(*operation, ':');
    if (!value)
      stop("an operation has no value");
    if (!strncmp(*operation, "read:", 5))
      read_ids(session, value + 1, info.vocab_size);
    else if (slm_rewind(session, (size_t)atoi(value + 1)))
      stop(slm_error_text(session));
  }
  slm_session_free(session);
  slm_close(model);
  return 0;
}
