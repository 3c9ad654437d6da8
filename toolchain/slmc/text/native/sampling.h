/* Taking the next token by what the model says of it: the same on every CPU, for the same logits and seed.
 *
 * Logits are divided by the temperature; of the tokens, in order of their logits and then their ids, the first top_k
 * are kept; of those the first that have top_p of their probability between them; one of these is drawn by its
 * probability. */
#ifndef SLM_SAMPLING_H
#define SLM_SAMPLING_H

#include <stddef.h>
#include <stdint.h>

struct candidate {
  float logit;
  int32_t id;
};

struct sampling {
  double temperature; /* 0: the likeliest token is taken */
  double top_p;       /* 1: all */
  size_t top_k;       /* 0: all */
};

/* What a logit is reduced by to become a log-probability; NAN where one of them is no number. */
double slm_log_sum_exp(const float *logits, size_t count);

/* The id that is taken of at least one candidate with finite logits, which are in order of their ids and are left in
 * any order. `random` is the seed at first, and moves on where a token is drawn. */
int32_t slm_sample(const struct sampling *sampling, uint64_t *random, struct candidate *candidates, size_t count);

#endif
