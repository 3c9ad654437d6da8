/* What slm_decider is: a session, and all that a task's answers need. */
#ifndef SLM_DECIDER_H
#define SLM_DECIDER_H

#include "session.h"
#include "task.h"
#include "writing.h"

struct slm_decider {
  const slm_task *task;
  slm_session *session;
  float abstain_below;

  struct encoder encoder; /* ids: the whole prompt, and what all labels begin with */
  struct buffer text;
  size_t prompt_tokens;
  int32_t *held; /* [context]: what the session has read */

  /* For a task with labels. */
  struct search search;
  struct matrix head;
  float *logits;            /* [CHUNK, head.rows] */
  struct branches branches; /* as many tokens as the choices' nodes have */
  int32_t *ids;             /* of them */
  int32_t *last;            /* [nodes]: a node's last token among them, -1 for the first node's */
  int64_t used;

  struct writing answer;

  uint8_t *memory; /* holds the arrays */
  uint64_t memory_bytes;
  struct buffer prefix; /* of slm_prefix_make */
};

/* An item's prompt into encoder.ids; prompt_tokens is how many. */
slm_status slm_decider_encode(slm_decider *decider, const slm_text *fields, size_t count);
/* Read encoder.ids, but for what the session holds already; how many were read. So many more will fit after them. */
slm_status slm_decider_read(slm_decider *decider, size_t after, int32_t *read);

#endif
