/* Checks itself and decides, for tests that run the library's objects on another CPU:
 *
 *     decide FILE TASK PREFIX FIELD...
 *
 * PREFIX may be "-". Prints the kernels' name, whether the prefix was taken, what the canary says, and the decision. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "slm.h"

enum { MOST_FIELDS = 8 };

/* As Android's libc calls it: objects for Android run with another libc here. */
int *__errno(void);
int *__errno(void) { return &errno; }

static void stop(const char *text) {
  fprintf(stderr, "%s\n", text);
  exit(1);
}

int main(int count, char **words) {
  slm_error error;
  slm_model *model;
  slm_task *task;
  slm_decider *decider;
  slm_model_info info;
  slm_check check;
  slm_decision decision;
  slm_text fields[MOST_FIELDS];
  if (count < 4 || count - 4 > MOST_FIELDS)
    stop("decide FILE TASK PREFIX FIELD...");
  if (slm_open(words[1], NULL, &model, &error) || slm_task_open(words[2], &task, &error))
    stop(error.text);
  slm_decider_options options = {.prefix = strcmp(words[3], "-") ? words[3] : NULL};
  int taken = options.prefix != NULL;
  if (slm_decider_new(model, task, &options, &decider, &error)) {
    taken = 0;
    options.prefix = NULL;
    if (slm_decider_new(model, task, &options, &decider, &error))
      stop(error.text);
  }
  slm_model_info_get(model, &info);
  printf("%s\n%d\n", info.kernels, taken);
  if (slm_self_test(decider, &check))
    stop(slm_decider_error_text(decider));
  printf("%d %d %s\n", (int)check.items, (int)check.failed, check.text);
  for (int i = 4; i < count; i++)
    fields[i - 4] = (slm_text){words[i], strlen(words[i])};
  if (slm_classify(decider, fields, (size_t)count - 4, &decision))
    stop(slm_decider_error_text(decider));
  printf("%d %a\n", (int)decision.choice, slm_choice_logprob(decider, decision.choice));
  slm_decider_free(decider);
  slm_task_close(task);
  slm_close(model);
  return 0;
}
