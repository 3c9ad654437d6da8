/* Answers to a workload, as lines of a result of slmc's runner contract. */
#ifndef SLM_ANSWERS_H
#define SLM_ANSWERS_H

#include "workload.h"

struct answering {
  const slm_model *model;
  int32_t threads;
  int32_t vocab_size;
  slm_session *session; /* made when it is needed */
  slm_decider *decider; /* NULL without a task file */
  const slm_task *task;
  FILE *result;
  struct buffer ids, texts; /* of the answer; slm_text of the item's fields */
  double *logprobs;         /* [vocab_size] */
  int32_t *order;           /* [vocab_size] */
};

/* Answers one item and writes its line. Text and decisions are the decider's where the item has fields; a session's
 * where it has ids alone. */
slm_status answer_item(struct answering *answering, const struct workload *workload, const struct item *item,
                       slm_error *error);

#endif
