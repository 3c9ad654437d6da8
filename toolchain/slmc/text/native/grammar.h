/* What an answer may be, token by token: text/grammar.py writes it and tells its layout. */
#ifndef SLM_GRAMMAR_H
#define SLM_GRAMMAR_H

#include "tokenizer.h"

enum { GRAMMAR_DEAD = 0, GRAMMAR_START = 1 };

/* The tokens that are allowed in a state: ids in order, or a bit for each. */
struct token_mask {
  uint32_t begin, count; /* of its words; of its tokens */
};

struct grammar {
  uint32_t states, classes, tokens; /* states is 0 where there is none */
  const uint8_t *class_of;          /* [256] */
  const struct token_mask *masks;
  const uint32_t *state; /* [states]: a mask's number * 2, plus 1 where an answer may end */
  const uint32_t *words; /* of all masks */
  const uint16_t *next;  /* [states, classes] */
};

int slm_grammar_open(struct bytes section, const struct tokenizer *tokenizer, struct grammar *found);

static inline int grammar_accepts(const struct grammar *grammar, uint32_t state) { return grammar->state[state] & 1; }

/* The ids that are allowed in a state, in order, but for the end token; how many, at most `tokens`. */
size_t slm_grammar_allowed(const struct grammar *grammar, uint32_t state, int32_t *ids);

/* The state after a token, whose id is one of the tokenizer's; `first` where no token stands before it. GRAMMAR_DEAD
 * where no answer goes on so. */
uint32_t slm_grammar_step(const struct grammar *grammar, const struct tokenizer *tokenizer, uint32_t state, uint32_t id,
                          int first);

#endif
