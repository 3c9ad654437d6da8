/* Byte pair encoding: of the neighbours that a merge is known for, the earliest merge is done, until none is left.
 *
 * Symbols are a list over the piece, merges wait in a heap; so a piece of n symbols takes n log n steps, however it was
 * made. A piece that is a token by itself is looked up at once: text/models.py has found out which ones are. */
#include "tokenizer.h"

#include "utf8.h"

struct symbol {
  uint32_t id;
  int32_t previous, next; /* -1: none */
  uint32_t alive;
};

/* A merge that was possible: rank and place of its left symbol, so that less is sooner; and what it makes. */
struct merge {
  uint64_t order;
  uint32_t id, unused;
};

static int push_symbol(struct buffer *symbols, uint32_t id) {
  const int32_t index = (int32_t)(symbols->size / sizeof(struct symbol));
  const struct symbol symbol = {id, index - 1, index + 1, 1};
  return buffer_append(symbols, &symbol, sizeof symbol);
}

/* The symbols that a piece begins as. */
static int begin(const struct tokenizer *tokenizer, struct buffer *symbols, const uint8_t *piece, size_t size) {
  int unknown_before = 0;
  for (size_t at = 0; at < size;) {
    const size_t length = tokenizer->flags & BYTES_ONLY ? 1 : (size_t)utf8_length(piece[at]);
    const uint32_t id = tokenizer->flags & BYTES_ONLY
                            ? tokenizer->byte_ids[piece[at]]
                            : slm_words_find(&tokenizer->words, &tokenizer->tokens, 0, piece + at, length);
    int pushed = 1;
    if (id != NONE) {
      pushed = push_symbol(symbols, id);
    } else if (tokenizer->flags & BYTE_FALLBACK) {
      for (size_t i = 0; i < length && pushed; i++)
        pushed = push_symbol(symbols, tokenizer->byte_ids[piece[at + i]]);
    } else if (tokenizer->unknown != NONE && !(unknown_before && tokenizer->flags & FUSE_UNKNOWN)) {
      pushed = push_symbol(symbols, tokenizer->unknown);
    }
    if (!pushed)
      return 0;
    unknown_before = id == NONE;
    at += length;
  }
  return 1;
}

/* ---- The heap ------------------------------------------------------------------------------------------------- */

static int push_merge(struct buffer *heap, struct merge merge) {
  if (!buffer_append(heap, &merge, sizeof merge))
    return 0;
  struct merge *merges = (struct merge *)(void *)heap->bytes;
  size_t at = heap->size / sizeof merge - 1;
  for (; at && merges[(at - 1) / 2].order > merge.order; at = (at - 1) / 2)
    merges[at] = merges[(at - 1) / 2];
  merges[at] = merge;
  return 1;
}

static struct merge pop_merge(struct buffer *heap) {
  struct merge *merges = (struct merge *)(void *)heap->bytes;
  heap->size -= sizeof *merges;
  const size_t count = heap->size / sizeof *merges;
  const struct merge least = merges[0], last = merges[count];
  size_t at = 0;
  for (size_t child; (child = 2 * at + 1) < count; at = child) {
    child += child + 1 < count && merges[child + 1].order < merges[child].order;
    if (merges[child].order >= last.order)
      break;
    merges[at] = merges[child];
  }
  merges[at] = last;
  return least;
}

/* ---- Merging -------------------------------------------------------------------------------------------------- */

/* Note the merge of a symbol with its next one, where there is one. */
static int consider(const struct tokenizer *tokenizer, struct buffer *heap, const struct symbol *symbols,
                    int32_t count, int32_t left) {
  const int32_t right = left < 0 ? count : symbols[left].next;
  if (right >= count)
    return 1;
  const struct pair *found = slm_pairs_find(&tokenizer->merges, symbols[left].id, symbols[right].id);
  return !found || push_merge(heap, (struct merge){(uint64_t)found->rank << 32 | (uint32_t)left, found->id, 0});
}

static int merge_all(const struct tokenizer *tokenizer, struct buffer *heap, struct symbol *symbols, int32_t count) {
  heap->size = 0;
  for (int32_t i = 0; i + 1 < count; i++) {
    if (!consider(tokenizer, heap, symbols, count, i))
      return 0;
  }
  while (heap->size) {
    const struct merge merge = pop_merge(heap);
    const int32_t at = (int32_t)(uint32_t)merge.order;
    struct symbol *left = &symbols[at];
    if (!left->alive || left->next >= count)
      continue;
    struct symbol *right = &symbols[left->next];
    const struct pair *now = slm_pairs_find(&tokenizer->merges, left->id, right->id);
    if (!now || now->id != merge.id)
      continue; /* its symbols were merged with others meanwhile */
    left->id = merge.id;
    left->next = right->next;
    right->alive = 0;
    if (right->next < count)
      symbols[right->next].previous = at;
    if (!consider(tokenizer, heap, symbols, count, left->previous) ||
        !consider(tokenizer, heap, symbols, count, at))
      return 0;
  }
  return 1;
}

int slm_encode_bpe(const struct tokenizer *tokenizer, struct encoder *encoder, const uint8_t *piece, size_t size) {
  const uint32_t whole = slm_words_find(&tokenizer->words, &tokenizer->tokens, 0, piece, size);
  if (whole != NONE)
    return encoder_push(encoder, whole);
  encoder->symbols.size = 0;
  if (size >= INT32_MAX || !begin(tokenizer, &encoder->symbols, piece, size))
    return 0;
  struct symbol *symbols = (struct symbol *)(void *)encoder->symbols.bytes;
  const int32_t count = (int32_t)(encoder->symbols.size / sizeof *symbols);
  if (!merge_all(tokenizer, &encoder->heap, symbols, count))
    return 0;
  for (int32_t i = 0; i < count; i = symbols[i].next) {
    if (!encoder_push(encoder, symbols[i].id))
      return 0;
  }
  return 1;
}
