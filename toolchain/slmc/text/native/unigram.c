/* Unigram: the way to cut a piece whose tokens' scores sum to the most (Kudo 2018), by Viterbi's algorithm. */
#include "tokenizer.h"

#include "utf8.h"

/* The best way to have read up to a byte. */
struct reached {
  double score;
  size_t begin; /* of its last token; SIZE_MAX where there is no way */
  uint32_t id, end_of_token;
};

static void offer(struct reached *reached, double score, size_t begin, uint32_t id) {
  if (reached->begin != SIZE_MAX && !(score > reached->score))
    return;
  reached->score = score;
  reached->begin = begin;
  reached->id = id;
}

static void reach(const struct tokenizer *tokenizer, struct reached *reached, const uint8_t *piece, size_t size) {
  for (size_t i = 0; i <= size; i++)
    reached[i] = (struct reached){.begin = SIZE_MAX};
  for (size_t at = 0; at < size;) {
    const size_t length = (size_t)utf8_length(piece[at]);
    const double score = reached[at].score;
    int single = 0;
    uint32_t node = 0;
    for (size_t end = at; end < size && (node = slm_trie_step(&tokenizer->trie, node, piece[end]));) {
      end++;
      if (!tokenizer->trie.values[node])
        continue;
      const uint32_t id = tokenizer->trie.values[node] - 1;
      offer(&reached[end], tokenizer->scores[id] + score, at, id);
      single |= end == at + length;
    }
    if (!single)
      offer(&reached[at + length], tokenizer->unknown_score + score, at, tokenizer->unknown);
    at += length;
  }
}

static uint32_t whole_token(const struct trie *trie, const uint8_t *text, size_t size) {
  uint32_t node = 0;
  for (size_t i = 0; i < size; i++) {
    node = slm_trie_step(trie, node, text[i]);
    if (!node)
      return NONE;
  }
  return trie->values[node] - 1; /* NONE where it is 0 */
}

/* A token, or a run of unknown characters together. */
static int push(const struct tokenizer *tokenizer, struct encoder *encoder, const uint8_t *text, size_t size) {
  const uint32_t id = whole_token(&tokenizer->trie, text, size);
  if (id != NONE || !(tokenizer->flags & BYTE_FALLBACK))
    return encoder_push(encoder, id != NONE ? id : tokenizer->unknown);
  for (size_t i = 0; i < size; i++) {
    if (!encoder_push(encoder, tokenizer->byte_ids[text[i]]))
      return 0;
  }
  return 1;
}

int slm_encode_unigram(const struct tokenizer *tokenizer, struct encoder *encoder, const uint8_t *piece, size_t size) {
  encoder->symbols.size = 0;
  if (size > SIZE_MAX / sizeof(struct reached) - 1 ||
      !buffer_reserve(&encoder->symbols, (size + 1) * sizeof(struct reached)))
    return 0;
  struct reached *reached = (struct reached *)(void *)encoder->symbols.bytes;
  reach(tokenizer, reached, piece, size);
  for (size_t end = size; end; end = reached[end].begin)
    reached[end].end_of_token = 1;
  int unknown = 0;
  size_t begin = 0;
  for (size_t end = 1; end <= size; end++) {
    if (!reached[end].end_of_token)
      continue;
    const int is_unknown = reached[end].id == tokenizer->unknown;
    /* Unknown characters wait for more of them. */
    if (unknown && !is_unknown && !push(tokenizer, encoder, piece + begin, reached[end].begin - begin))
      return 0;
    if (!unknown || !is_unknown)
      begin = reached[end].begin;
    if (!is_unknown && !push(tokenizer, encoder, piece + begin, end - begin))
      return 0;
    unknown = is_unknown;
  }
  return !unknown || push(tokenizer, encoder, piece + begin, size - begin);
}
