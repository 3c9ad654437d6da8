/* From ids to text, a token at a time. */
#ifndef SLM_SPELL_H
#define SLM_SPELL_H

#include "tokenizer.h"

struct spelling {
  const struct tokenizer *tokenizer;
  struct buffer out;     /* what the last call wrote */
  struct buffer pending; /* bytes that are no whole character yet, or a run of byte tokens */
  int begun;             /* a token was spelled */
  uint32_t stripped;
};

void slm_spelling_clear(struct spelling *spelling);
/* The next token is the first of an answer. */
void slm_spelling_restart(struct spelling *spelling);
/* Both write to `out` anew; 0 where there is no memory. */
int slm_spell_id(struct spelling *spelling, int32_t id);
int slm_spell_rest(struct spelling *spelling);

#endif
