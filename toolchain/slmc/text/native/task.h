/* A task file in memory: text/sections.py tells how it is laid out. */
#ifndef SLM_TASK_H
#define SLM_TASK_H

#include "golden.h"
#include "grammar.h"
#include "prompt.h"
#include "search.h"
#include "tokenizer.h"

enum section {
  TOKENIZER = 1,
  NORMALIZER,
  PREPARE,
  PREFIX,
  SPLITS,
  TOKENS,
  WORDS,
  CONTINUING,
  MERGES,
  SCORES,
  TRIE,
  ADDED,
  ADDED_NORMALIZED,
  SPELLING,
  PIECES,
  FIRST_PIECES,
  PROMPT,
  CHOICES,
  GRAMMAR,
  GOLDEN,
  SECTIONS
};

struct slm_task {
  struct bytes file;
  struct bytes sections[SECTIONS]; /* data is NULL where there is none */
  struct tokenizer tokenizer;
  struct prompt prompt;   /* strings.count is 0 where there is none */
  struct choices choices; /* count is 0 where there are none */
  struct grammar grammar; /* states is 0 where there is none */
  struct golden golden;   /* count is 0 where there are none */
};

static inline struct bytes section_of(const struct slm_task *task, enum section kind) { return task->sections[kind]; }

/* Check all of task->file, which is aligned to 64, and find what is in it. */
slm_status slm_task_read(slm_task *task, slm_error *error);

/* Check a tokenizer's sections; what is damaged, or NULL. */
const char *slm_tokenizer_open(const struct slm_task *task, struct tokenizer *tokenizer);

/* The ids of a rendered prompt, anew, with the tokenizer's own around them where the prompt says so. 0 where there is no
 * memory. */
int slm_prompt_encode(const slm_task *task, struct encoder *encoder, const uint8_t *text, size_t size);

/* The ids of an item's prompt, at least one, anew; its text lies in `text`. */
slm_status slm_prompt_read(const slm_task *task, const slm_text *fields, size_t count, struct encoder *encoder,
                           struct buffer *text, slm_error *error);

#endif
