/* From text to ids: added tokens are found, what is between them is normalized, cut in pieces, and given to a model. */
#include "tokenizer.h"

#include "utf8.h"

void slm_encoder_clear(struct encoder *encoder) {
  buffer_free(&encoder->text);
  buffer_free(&encoder->prepared);
  buffer_free(&encoder->spare);
  buffer_free(&encoder->spans[0]);
  buffer_free(&encoder->spans[1]);
  buffer_free(&encoder->symbols);
  buffer_free(&encoder->heap);
  buffer_free(&encoder->ids);
}

/* ---- Pieces --------------------------------------------------------------------------------------------------- */

static int push_span(struct buffer *spans, size_t begin, size_t end) {
  const struct span span = {begin, end};
  return begin == end || buffer_append(spans, &span, sizeof span);
}

/* Stretches that match and that don't, one after another, put together as the behavior has it. */
struct cutter {
  enum behavior behavior;
  struct buffer *spans;
  struct span held; /* not pushed yet: what comes next may be merged with it */
  int has_held, held_matched;
};

static int put(struct cutter *cutter, size_t begin, size_t end, int matched) {
  if (begin == end)
    return 1;
  int merge = 0;
  if (cutter->has_held) {
    merge = cutter->behavior == MERGED_WITH_PREVIOUS ? matched && !cutter->held_matched
            : cutter->behavior == MERGED_WITH_NEXT   ? !matched && cutter->held_matched
                                                     : cutter->behavior == CONTIGUOUS && matched == cutter->held_matched;
    if (!merge && !push_span(cutter->spans, cutter->held.begin, cutter->held.end))
      return 0;
  }
  if (cutter->behavior == REMOVED && matched) {
    cutter->has_held = 0;
    return 1;
  }
  cutter->held = (struct span){merge ? cutter->held.begin : begin, end};
  cutter->has_held = 1;
  cutter->held_matched = matched;
  return 1;
}

static int cut_span(const struct cut *cut, const uint8_t *text, struct span span, struct buffer *spans) {
  struct cutter cutter = {.behavior = cut->behavior, .spans = spans};
  size_t done = span.begin;
  for (size_t at = span.begin; at < span.end;) {
    const size_t end = slm_automaton_match(&cut->automaton, text, at, span.end);
    if (end == at) {
      at += (size_t)utf8_length(text[at]);
      continue;
    }
    if (!put(&cutter, done, at, cut->invert) || !put(&cutter, at, end, !cut->invert))
      return 0;
    done = at = end;
  }
  return put(&cutter, done, span.end, cut->invert) &&
         (!cutter.has_held || push_span(spans, cutter.held.begin, cutter.held.end));
}

/* The pieces of a text, in encoder->spans[0]. */
static int cut_text(const struct tokenizer *tokenizer, struct encoder *encoder, const uint8_t *text, size_t size) {
  struct buffer *from = &encoder->spans[0], *to = &encoder->spans[1];
  from->size = 0;
  if (!push_span(from, 0, size))
    return 0;
  for (uint32_t i = 0; i < tokenizer->cuts; i++) {
    to->size = 0;
    for (size_t at = 0; at < from->size; at += sizeof(struct span)) {
      struct span span;
      memcpy(&span, from->bytes + at, sizeof span);
      if (!cut_span(&tokenizer->cut[i], text, span, to))
        return 0;
    }
    const struct buffer swapped = *from;
    *from = *to;
    *to = swapped;
  }
  return 1;
}

static int encode_piece(const struct tokenizer *tokenizer, struct encoder *encoder, const uint8_t *piece, size_t size) {
  switch (tokenizer->kind) {
    case BPE:
      return slm_encode_bpe(tokenizer, encoder, piece, size);
    case UNIGRAM:
      return slm_encode_unigram(tokenizer, encoder, piece, size);
    default:
      return slm_encode_word_piece(tokenizer, encoder, piece, size);
  }
}

/* A text without added tokens, normalized. */
static int encode_plain(const struct tokenizer *tokenizer, struct encoder *encoder, const uint8_t *text, size_t size,
                        int first) {
  if (!size)
    return 1;
  const int prefix = tokenizer->prefix_always || (tokenizer->prefix_first && first);
  if (prefix || tokenizer->prepare.count) {
    encoder->prepared.size = 0;
    if (!buffer_append(&encoder->prepared, text, size) ||
        !slm_normalize(&tokenizer->prepare, &encoder->prepared, &encoder->spare))
      return 0;
    const struct bytes before = tokenizer->prefix;
    struct buffer *made = &encoder->prepared;
    if (prefix && (made->size < before.size || memcmp(made->bytes, before.data, before.size))) {
      if (!buffer_reserve(made, before.size))
        return 0;
      memmove(made->bytes + before.size, made->bytes, made->size);
      memcpy(made->bytes, before.data, before.size);
      made->size += before.size;
    }
    text = made->bytes;
    size = made->size;
  }
  if (!cut_text(tokenizer, encoder, text, size))
    return 0;
  for (size_t at = 0; at < encoder->spans[0].size; at += sizeof(struct span)) {
    struct span span;
    memcpy(&span, encoder->spans[0].bytes + at, sizeof span);
    if (!encode_piece(tokenizer, encoder, text + span.begin, span.end - span.begin))
      return 0;
  }
  return 1;
}

/* ---- Added tokens --------------------------------------------------------------------------------------------- */

static size_t skip_spaces(const uint8_t *text, size_t at, size_t size) {
  int length;
  while (at < size && is_white_space(utf8_read(text + at, &length)))
    at += (size_t)length;
  return at;
}

static size_t skip_spaces_back(const uint8_t *text, size_t at) {
  while (at) {
    size_t before = at - 1;
    while ((text[before] & 0xc0) == 0x80)
      before--;
    int length;
    if (!is_white_space(utf8_read(text + before, &length)))
      break;
    at = before;
  }
  return at;
}

/* The longest added token at `at`: its value; *end is where it ends. 0 where there is none. */
static uint32_t added_at(const struct trie *trie, const uint8_t *text, size_t at, size_t size, size_t *end) {
  uint32_t node = 0, found = 0;
  while (at < size && (node = slm_trie_step(trie, node, text[at]))) {
    at++;
    if (trie->values[node]) {
      found = trie->values[node];
      *end = at;
    }
  }
  return found;
}

typedef int part_work(const struct tokenizer *tokenizer, struct encoder *encoder, const uint8_t *text, size_t size,
                      int first);

/* The added tokens in a text, and `work` on what is between them. */
static int split_added(const struct trie *trie, const struct tokenizer *tokenizer, struct encoder *encoder,
                       const uint8_t *text, size_t size, int first, part_work *work) {
  size_t done = 0, end = 0;
  for (size_t at = 0; at < size;) {
    const uint32_t found = trie->first[text[at]] ? added_at(trie, text, at, size, &end) : 0;
    if (!found) {
      at++;
      continue;
    }
    const uint32_t value = found - 1;
    size_t begin = at;
    at = end;
    if (value & LSTRIP) {
      begin = skip_spaces_back(text, begin);
      begin = begin > done ? begin : done;
    }
    if (value & RSTRIP)
      end = skip_spaces(text, end, size);
    if (done < begin && !work(tokenizer, encoder, text + done, begin - done, first && !done))
      return 0;
    if (!encoder_push(encoder, value & ADDED_ID))
      return 0;
    done = end;
  }
  return done == size || work(tokenizer, encoder, text + done, size - done, first && !done);
}

static int encode_part(const struct tokenizer *tokenizer, struct encoder *encoder, const uint8_t *text, size_t size,
                       int first) {
  encoder->text.size = 0;
  if (!buffer_append(&encoder->text, text, size) ||
      !slm_normalize(&tokenizer->normalizer, &encoder->text, &encoder->spare))
    return 0;
  return split_added(&tokenizer->added_normalized, tokenizer, encoder, encoder->text.bytes, encoder->text.size, first,
                     encode_plain);
}

int slm_encode_text(const struct tokenizer *tokenizer, struct encoder *encoder, const uint8_t *text, size_t size,
                    int first) {
  return split_added(&tokenizer->added, tokenizer, encoder, text, size, first, encode_part);
}
