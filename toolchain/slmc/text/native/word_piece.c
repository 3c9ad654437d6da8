/* WordPiece: from the left, the longest token each time; where there is none, the whole word is unknown. */
#include "tokenizer.h"

#include "utf8.h"

static size_t characters(const uint8_t *text, size_t size) {
  size_t count = 0;
  for (size_t i = 0; i < size; i++)
    count += (text[i] & 0xc0) != 0x80;
  return count;
}

/* The longest token that begins at `at`; *end is where it ends. NONE where there is none. */
static uint32_t longest(const struct tokenizer *tokenizer, const uint8_t *piece, size_t at, size_t size, size_t *end) {
  const struct words *words = at ? &tokenizer->continuing : &tokenizer->words;
  for (*end = size; *end > at; (*end)--) {
    if (*end < size && (piece[*end] & 0xc0) == 0x80)
      continue;
    const uint32_t id = slm_words_find(words, &tokenizer->tokens, at ? tokenizer->continuing_prefix : 0, piece + at,
                                       *end - at);
    if (id != NONE)
      return id;
  }
  return NONE;
}

int slm_encode_word_piece(const struct tokenizer *tokenizer, struct encoder *encoder, const uint8_t *piece,
                          size_t size) {
  const size_t begun = encoder->ids.size;
  if (characters(piece, size) > tokenizer->longest_word)
    return encoder_push(encoder, tokenizer->unknown);
  for (size_t at = 0, end; at < size; at = end) {
    const uint32_t id = longest(tokenizer, piece, at, size, &end);
    if (id == NONE) {
      encoder->ids.size = begun;
      return encoder_push(encoder, tokenizer->unknown);
    }
    if (!encoder_push(encoder, id))
      return 0;
  }
  return 1;
}
