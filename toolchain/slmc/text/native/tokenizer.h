/* A tokenizer's tables, and what encoding with them needs. */
#ifndef SLM_TOKENIZER_H
#define SLM_TOKENIZER_H

#include "automaton.h"
#include "buffer.h"
#include "normalize.h"
#include "table.h"

enum model_kind { BPE = 0, UNIGRAM = 1, WORD_PIECE = 2 };
enum { BYTES_ONLY = 1, FUSE_UNKNOWN = 2, BYTE_FALLBACK = 4 }; /* flags */
enum behavior { REMOVED = 0, ISOLATED, MERGED_WITH_PREVIOUS, MERGED_WITH_NEXT, CONTIGUOUS };
enum { MOST_CUTS = 8 };
enum { LSTRIP = 1 << 29, RSTRIP = 1 << 30, ADDED_ID = LSTRIP - 1 /* of an added token's value */ };
enum { SPELL_RAW = 1, SPELL_BYTE_RUNS = 2 };
enum { KIND_SPECIAL = 1, KIND_BYTE = 2, KIND_NONE = 4 };

struct cut {
  enum behavior behavior;
  int invert;
  struct automaton automaton;
};

struct tokenizer {
  enum model_kind kind;
  uint32_t count; /* of tokens: ids are below it */
  uint32_t flags, unknown, longest_word;
  const uint32_t *byte_ids; /* [256] */
  uint32_t before_count, after_count;
  const uint32_t *before, *after; /* ids around a text */

  struct normalizer normalizer, prepare;
  int prefix_always, prefix_first;
  struct bytes prefix;
  uint32_t cuts;
  struct cut cut[MOST_CUTS];

  struct strings tokens;
  struct words words, continuing;
  size_t continuing_prefix; /* bytes of what the tokens of `continuing` begin with */
  struct pairs merges;
  const double *scores; /* [count of Unigram's tokens] */
  double unknown_score;
  struct trie trie;
  struct trie added, added_normalized;

  /* See spell.c. */
  uint32_t spelling, strip, strip_most;
  const uint8_t *kinds; /* [count] */
  struct strings pieces, first_pieces;
};

/* A piece of text that was cut. */
struct span {
  size_t begin, end;
};

/* What encoding needs, kept so that it is taken once. */
struct encoder {
  struct buffer text, prepared, spare; /* of a part between added tokens */
  struct buffer spans[2];              /* of struct span */
  struct buffer symbols, heap;         /* of the model */
  struct buffer ids;                   /* int32_t: what came out */
};

void slm_encoder_clear(struct encoder *encoder);

/* Append the ids of valid UTF-8; `first` where no text came before. 0 where there is no memory. */
int slm_encode_text(const struct tokenizer *tokenizer, struct encoder *encoder, const uint8_t *text, size_t size,
                    int first);

/* Of one piece; 0 where there is no memory. */
int slm_encode_bpe(const struct tokenizer *tokenizer, struct encoder *encoder, const uint8_t *piece, size_t size);
int slm_encode_unigram(const struct tokenizer *tokenizer, struct encoder *encoder, const uint8_t *piece, size_t size);
int slm_encode_word_piece(const struct tokenizer *tokenizer, struct encoder *encoder, const uint8_t *piece,
                          size_t size);

static inline int encoder_push(struct encoder *encoder, uint32_t id) {
  const int32_t signed_id = (int32_t)id;
  return buffer_append(&encoder->ids, &signed_id, sizeof signed_id);
}

#endif
