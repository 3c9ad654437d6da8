#include "grammar.h"

#include "utf8.h"

enum { NUMBERS = 5, MOST_STATES = 1 << 16, MOST_CLASSES = 256, BITS = 32 };

static size_t set_words(const struct grammar *grammar) { return ((size_t)grammar->tokens + BITS - 1) / BITS; }

/* The smaller form is the one that is written. */
static int is_list(const struct grammar *grammar, const struct token_mask *mask) {
  return mask->count < set_words(grammar);
}

static uint32_t bits_in(uint32_t word) {
  uint32_t count = 0;
  for (; word; word &= word - 1)
    count++;
  return count;
}

/* Ids in order, or as many bits as it says and none beyond the tokens. */
static int mask_is_sound(const struct grammar *g, const struct token_mask *mask, uint32_t words) {
  const size_t own = is_list(g, mask) ? mask->count : set_words(g);
  if (mask->begin > words || own > words - mask->begin)
    return 0;
  const uint32_t *word = g->words + mask->begin;
  if (is_list(g, mask)) {
    for (size_t i = 0; i < own; i++) {
      if (word[i] >= g->tokens || (i && word[i] <= word[i - 1]))
        return 0;
    }
    return 1;
  }
  uint32_t count = 0;
  for (size_t i = 0; i < own; i++)
    count += bits_in(word[i]);
  const uint32_t last = g->tokens % BITS;
  return count == mask->count && (!last || !(word[own - 1] >> last));
}

static int tables_are_sound(const struct grammar *g, uint32_t masks, uint32_t words) {
  for (int i = 0; i < 256; i++) {
    if (g->class_of[i] >= g->classes)
      return 0;
  }
  for (uint32_t i = 0; i < masks; i++) {
    if (!mask_is_sound(g, &g->masks[i], words))
      return 0;
  }
  for (uint32_t i = 0; i < g->states; i++) {
    if (g->state[i] >> 1 >= masks)
      return 0;
  }
  for (size_t i = 0; i < (size_t)g->states * g->classes; i++) {
    if (g->next[i] >= g->states)
      return 0;
  }
  return 1;
}

int slm_grammar_open(struct bytes section, const struct tokenizer *tokenizer, struct grammar *found) {
  const uint32_t *numbers = (const uint32_t *)(const void *)section.data;
  if (section.size < 4 * NUMBERS + 256)
    return 0;
  found->states = numbers[0];
  found->classes = numbers[1];
  found->tokens = numbers[2];
  const uint32_t masks = numbers[3], words = numbers[4];
  if (found->states <= GRAMMAR_START || found->states > MOST_STATES || found->classes < 1 ||
      found->classes > MOST_CLASSES || found->tokens != tokenizer->count)
    return 0;
  found->class_of = section.data + 4 * NUMBERS;
  const size_t head = 4 * NUMBERS + 256;
  const uint64_t entries = ((uint64_t)found->states * found->classes * sizeof *found->next + 3) / 4 * 4;
  if (head + (uint64_t)masks * sizeof *found->masks + 4 * ((uint64_t)found->states + words) + entries != section.size)
    return 0;
  found->masks = (const struct token_mask *)(const void *)(section.data + head);
  found->state = (const uint32_t *)(const void *)(found->masks + masks);
  found->words = found->state + found->states;
  found->next = (const uint16_t *)(const void *)(found->words + words);
  return tables_are_sound(found, masks, words);
}

size_t slm_grammar_allowed(const struct grammar *grammar, uint32_t state, int32_t *ids) {
  const struct token_mask *mask = &grammar->masks[grammar->state[state] >> 1];
  const uint32_t *word = grammar->words + mask->begin;
  if (is_list(grammar, mask)) {
    memcpy(ids, word, mask->count * sizeof *ids);
    return mask->count;
  }
  size_t count = 0;
  for (uint32_t id = 0; id < grammar->tokens; id++) {
    if (word[id / BITS] >> id % BITS & 1)
      ids[count++] = (int32_t)id;
  }
  return count;
}

static uint32_t walk(const struct grammar *grammar, uint32_t state, const uint8_t *bytes, size_t size) {
  for (size_t i = 0; i < size && state != GRAMMAR_DEAD; i++)
    state = grammar->next[(size_t)state * grammar->classes + grammar->class_of[bytes[i]]];
  return state;
}

/* Bytes at the start of a piece that the decoder leaves out of a first token. */
static size_t stripped(const struct tokenizer *t, const uint8_t *piece, size_t size) {
  uint8_t character[UTF8_MOST];
  const size_t length = (size_t)utf8_write(character, t->strip);
  size_t at = 0;
  for (uint32_t i = 0; i < t->strip_most && size - at >= length && !memcmp(piece + at, character, length); i++)
    at += length;
  return at;
}

uint32_t slm_grammar_step(const struct grammar *grammar, const struct tokenizer *tokenizer, uint32_t state, uint32_t id,
                          int first) {
  size_t size;
  const uint8_t *piece = string_at(&tokenizer->pieces, id, &size);
  const uint32_t found = walk(grammar, state, piece, size);
  if (found != GRAMMAR_DEAD || !first)
    return found;
  piece = string_at(&tokenizer->first_pieces, id, &size);
  const size_t skipped = stripped(tokenizer, piece, size);
  return walk(grammar, state, piece + skipped, size - skipped);
}
