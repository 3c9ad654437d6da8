/* What a tokenizer does to a text first: text/normalizer.py compiles it into steps.
 *
 *     uint32 steps; then for each: uint32 kind; uint32 size; uint8 payload[size], padded to 4 bytes
 *
 * normalize.c says what the payload of each kind is. */
#ifndef SLM_NORMALIZE_H
#define SLM_NORMALIZE_H

#include "buffer.h"

enum { NORMALIZED_MOST = 1 << 26 /* bytes of a text */ };

struct normalizer {
  const uint8_t *steps;
  uint32_t count;
};

/* The steps in `size` bytes, aligned to 4, that outlive them; 0 where they are damaged. Steps that are found read
 * within the bytes, end, and make valid UTF-8 of valid UTF-8, whoever wrote them. */
int slm_normalizer_open(const uint8_t *bytes, size_t size, struct normalizer *found);

/* The text, which is valid UTF-8, becomes what the steps make of it, by way of `spare`. 0 where there is no memory,
 * or where the text grows beyond NORMALIZED_MOST; then the text is anything. */
int slm_normalize(const struct normalizer *normalizer, struct buffer *text, struct buffer *spare);

#endif
