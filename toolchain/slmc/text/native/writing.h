/* An answer in text that is being written, a token at a time: all of it but the model. */
#ifndef SLM_WRITING_H
#define SLM_WRITING_H

#include "sampling.h"
#include "spell.h"
#include "task.h"

struct writing {
  const slm_task *task;
  int begun;
  slm_done done;
  struct sampling sampling;
  uint64_t random;
  struct buffer stops; /* for each: size_t, bytes */
  size_t limit;        /* of ids; before the answer begins 0 where none was asked for */
  uint32_t state;      /* of the task's grammar */

  struct buffer ids, logprobs; /* int32_t; double, one more where the end token came */
  struct buffer allowed;       /* room for int32_t [tokens] */
  struct buffer candidates;    /* room for struct candidate [vocab_size + 1] */

  struct spelling spelling;
  struct buffer text; /* that is not given yet, behind `given` bytes that are */
  size_t given;
  int prefix_passed; /* what stands before every answer came, or is not there */
};

/* All of these leave `error` as it is where they succeed. */

/* Keep how tokens are to be taken; `asked` may be NULL. */
slm_status slm_writing_ask(struct writing *writing, const slm_sampling *asked, slm_error *error);
/* An answer begins, of at most `room` tokens; memory for logits of so many. */
slm_status slm_writing_begin(struct writing *writing, const slm_task *task, size_t room, size_t vocab_size,
                             slm_error *error);
/* One more token or the end, of an answer that is not done, by float [vocab_size], at least as many as the tokenizer
 * has. On failure the answer is no more begun. */
slm_status slm_writing_take(struct writing *writing, const float *logits, size_t vocab_size, slm_error *error);
/* What the last token made certain. */
slm_text slm_writing_text(const struct writing *writing);
const int32_t *slm_writing_ids(const struct writing *writing, size_t *count);
const double *slm_writing_logprobs(const struct writing *writing, size_t *count);
void slm_writing_clear(struct writing *writing);

#endif
