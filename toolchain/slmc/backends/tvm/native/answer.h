/* An answer in text that is being written, a token at a time. */
#ifndef SLM_ANSWER_H
#define SLM_ANSWER_H

#include "sampling.h"
#include "slm.h"
#include "spell.h"

struct answer {
  int begun;
  slm_done done;
  struct sampling sampling;
  uint64_t random;
  struct buffer stops; /* for each: size_t, bytes */
  size_t limit;        /* of ids */
  uint32_t state;      /* of the task's grammar */

  int32_t *ids;     /* [context], `count` of them there */
  double *logprobs; /* [context]; one more where the end token came */
  size_t count, logprob_count;
  int32_t *allowed;             /* [vocab_size] */
  struct candidate *candidates; /* [vocab_size + 1] */

  struct spelling spelling;
  struct buffer text; /* that is not given yet, behind `given` bytes that are */
  size_t given;
  int prefix_passed; /* what stands before every answer came, or is not there */
};

void slm_answer_clear(struct answer *answer);

#endif
