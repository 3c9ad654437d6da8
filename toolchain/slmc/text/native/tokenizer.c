/* A tokenizer's sections, checked. */
#include "task.h"
#include "utf8.h"

enum { HEADER_NUMBERS = 8 };

static uint32_t number_at(struct bytes section, size_t index) {
  uint32_t number;
  memcpy(&number, section.data + 4 * index, sizeof number);
  return number;
}

/* Of all words of a trie, and of a mask's bits of them. */
static int values_below(const struct trie *trie, uint32_t mask, uint32_t limit) {
  for (uint32_t i = 0; i < trie->nodes; i++) {
    if (trie->values[i] && ((trie->values[i] - 1) & mask) >= limit)
      return 0;
  }
  return 1;
}

static int ids_below(const uint32_t *ids, size_t count, uint32_t limit) {
  for (size_t i = 0; i < count; i++) {
    if (ids[i] >= limit)
      return 0;
  }
  return 1;
}

/* As text/tokenizer.py writes it. */
static int open_header(struct bytes section, struct tokenizer *t) {
  if (section.size < 4 * (HEADER_NUMBERS + 256))
    return 0;
  t->kind = (enum model_kind)number_at(section, 0);
  t->count = number_at(section, 1);
  t->flags = number_at(section, 2);
  t->unknown = number_at(section, 3);
  t->longest_word = number_at(section, 4);
  t->before_count = number_at(section, 5);
  t->after_count = number_at(section, 6);
  t->continuing_prefix = number_at(section, 7);
  t->byte_ids = (const uint32_t *)(const void *)(section.data + 4 * HEADER_NUMBERS);
  t->before = t->byte_ids + 256;
  t->after = t->before + t->before_count;
  const size_t around = section.size / 4 - HEADER_NUMBERS - 256;
  if ((uint32_t)t->kind > WORD_PIECE || !t->count || t->count > 1u << 24 || section.size % 4 ||
      t->before_count > around || t->after_count != around - t->before_count)
    return 0;
  if (!ids_below(t->before, around, t->count) || (t->unknown != NONE && t->unknown >= t->count))
    return 0;
  for (int i = 0; i < 256; i++) {
    if (t->byte_ids[i] >= t->count && (t->byte_ids[i] != NONE || t->flags & BYTE_FALLBACK))
      return 0;
  }
  return 1;
}

/* As text/pre_tokenizer.py writes it. */
static int open_prefix(struct bytes section, struct tokenizer *t) {
  if (section.size < 8 || number_at(section, 0) > 2 || number_at(section, 1) != section.size - 8)
    return 0;
  t->prefix_always = number_at(section, 0) == 1;
  t->prefix_first = number_at(section, 0) == 2;
  t->prefix = (struct bytes){section.data + 8, section.size - 8};
  return utf8_valid(t->prefix.data, t->prefix.size);
}

static int open_cuts(struct bytes section, struct tokenizer *t) {
  if (section.size < 4 || number_at(section, 0) > MOST_CUTS)
    return 0;
  t->cuts = number_at(section, 0);
  size_t at = 4;
  for (uint32_t i = 0; i < t->cuts; i++) {
    if (section.size - at < 12)
      return 0;
    const uint32_t behavior = number_at(section, at / 4), size = number_at(section, at / 4 + 2);
    t->cut[i].behavior = (enum behavior)behavior;
    t->cut[i].invert = number_at(section, at / 4 + 1) != 0;
    at += 12;
    if (behavior > CONTIGUOUS || size % 4 || size > section.size - at ||
        slm_automaton_open(section.data + at, size, &t->cut[i].automaton) != size)
      return 0;
    at += size;
  }
  return at == section.size;
}

/* Of Unigram's tokens each has a score. */
static int open_scores(struct bytes section, struct tokenizer *t) {
  t->scores = (const double *)(const void *)section.data;
  const size_t count = section.size / sizeof *t->scores;
  double least = 0;
  for (size_t i = 0; i < count; i++)
    least = !i || t->scores[i] < least ? t->scores[i] : least;
  t->unknown_score = least - 10; /* as SentencePiece has it */
  return count && section.size % sizeof *t->scores == 0 && count <= t->count && t->unknown < count &&
         values_below(&t->trie, UINT32_MAX, (uint32_t)count);
}

static int open_model(const struct slm_task *task, struct tokenizer *t) {
  switch (t->kind) {
    case BPE:
      return slm_words_open(section_of(task, WORDS), t->count, &t->words) &&
             slm_pairs_open(section_of(task, MERGES), t->count, &t->merges);
    case UNIGRAM:
      return slm_trie_open(section_of(task, TRIE), &t->trie) && open_scores(section_of(task, SCORES), t);
    default:
      return slm_words_open(section_of(task, WORDS), t->count, &t->words) && t->unknown != NONE &&
             slm_words_open(section_of(task, CONTINUING), t->count, &t->continuing);
  }
}

static int open_added(struct bytes section, const struct tokenizer *t, struct trie *trie) {
  return slm_trie_open(section, trie) && values_below(trie, ADDED_ID, t->count);
}

static int open_normalizer(struct bytes section, struct normalizer *normalizer) {
  return slm_normalizer_open(section.data, section.size, normalizer);
}

/* As text/spelling.py writes it. */
static int open_spelling(const struct slm_task *task, struct tokenizer *t) {
  const struct bytes section = section_of(task, SPELLING), pieces = section_of(task, PIECES), first = section_of(task, FIRST_PIECES);
  if (section.size != 12 + (size_t)t->count)
    return 0;
  t->spelling = number_at(section, 0);
  t->strip = number_at(section, 1);
  t->strip_most = number_at(section, 2);
  t->kinds = section.data + 12;
  if (!pieces.data)
    t->pieces = t->tokens;
  else if (!slm_strings_open(pieces, &t->pieces) || t->pieces.count != t->count)
    return 0;
  if (!first.data)
    t->first_pieces = t->pieces;
  else if (!slm_strings_open(first, &t->first_pieces) || t->first_pieces.count != t->count)
    return 0;
  for (uint32_t i = 0; i < t->count; i++) {
    size_t size, first_size;
    const uint8_t *piece = string_at(&t->pieces, i, &size);
    const uint8_t *first_piece = string_at(&t->first_pieces, i, &first_size);
    if (t->kinds[i] & KIND_BYTE ? size != 1 || first_size != 1
                                : !(t->spelling & SPELL_RAW) &&
                                      !(utf8_valid(piece, size) && utf8_valid(first_piece, first_size)))
      return 0;
  }
  return 1;
}

const char *slm_tokenizer_open(const struct slm_task *task, struct tokenizer *t) {
  if (!open_header(section_of(task, TOKENIZER), t))
    return "the tokenizer's header";
  if (!open_normalizer(section_of(task, NORMALIZER), &t->normalizer) ||
      !open_normalizer(section_of(task, PREPARE), &t->prepare))
    return "the normalizer";
  if (!open_prefix(section_of(task, PREFIX), t) || !open_cuts(section_of(task, SPLITS), t))
    return "the pre-tokenizer";
  if (!slm_strings_open(section_of(task, TOKENS), &t->tokens) || t->tokens.count != t->count)
    return "the tokens";
  if (!open_model(task, t))
    return "the tokenizer's model";
  if (!open_added(section_of(task, ADDED), t, &t->added) ||
      !open_added(section_of(task, ADDED_NORMALIZED), t, &t->added_normalized))
    return "the added tokens";
  return open_spelling(task, t) ? NULL : "the tokens' spelling";
}
