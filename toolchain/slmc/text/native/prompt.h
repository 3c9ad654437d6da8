/* A prompt: what stands around a message, and the message with places for an item's fields. */
#ifndef SLM_PROMPT_H
#define SLM_PROMPT_H

#include "slm_text.h"
#include "tokenizer.h"

enum { PROMPT_TRIM = 1, PROMPT_SPECIAL = 2, MOST_FIELDS = 64 };

/* text/prompts.py writes it. */
struct prompt {
  uint32_t flags, end_id, parts, fields;
  const uint32_t *part; /* [parts]: NONE, or the field that stands there */
  uint32_t known;
  const int32_t *known_ids; /* [known]: what every prompt begins with */
  struct strings strings;   /* before, after, answer prefix; [parts] of text; [fields] names */
};

/* The numbers of its strings. */
enum { BEFORE, AFTER, ANSWER_PREFIX, FIRST_PART };

int slm_prompt_open(struct bytes section, const struct tokenizer *tokenizer, struct prompt *found);

/* What stands between the prompt and every answer, such as a space. */
static inline const uint8_t *prompt_answer_prefix(const struct prompt *prompt, size_t *size) {
  return string_at(&prompt->strings, ANSWER_PREFIX, size);
}

/* The text of an item, into `made`; SLM_OK, SLM_NO_MEMORY, SLM_BAD_TEXT or SLM_BAD_ARGUMENT. */
slm_status slm_prompt_render(const struct prompt *prompt, const slm_text *fields, size_t count, struct buffer *made);

#endif
