/* Hash tables, tries and strings of a task file: text/tables.py writes them and tells their layout.
 *
 * Each `open` function gives back 0 where the bytes are damaged; after it no look-up leaves them or goes on for ever. */
#ifndef SLM_TABLE_H
#define SLM_TABLE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define NONE UINT32_MAX

struct bytes {
  const uint8_t *data; /* aligned to 64 */
  size_t size;
};

/* ---- Strings by number ---- */

struct strings {
  uint32_t count;
  const uint32_t *begins; /* [count + 1] */
  const uint8_t *bytes;
};

int slm_strings_open(struct bytes section, struct strings *found);

static inline const uint8_t *string_at(const struct strings *strings, uint32_t index, size_t *size) {
  *size = strings->begins[index + 1] - strings->begins[index];
  return strings->bytes + strings->begins[index];
}

/* ---- From bytes to a number ---- */

struct words {
  uint32_t capacity;
  const uint32_t *slots;
};

/* Its numbers are below `limit`. */
int slm_words_open(struct bytes section, uint32_t limit, struct words *found);
/* NONE where the word is none of them; `strings` has their bytes. */
uint32_t slm_words_find(const struct words *words, const struct strings *strings, size_t skipped, const uint8_t *word,
                        size_t size);

/* ---- From two numbers to two ---- */

struct pair {
  uint32_t first, second, rank, id;
};

struct pairs {
  uint32_t capacity;
  const struct pair *slots;
};

int slm_pairs_open(struct bytes section, uint32_t limit, struct pairs *found);
/* NULL where there is none. */
const struct pair *slm_pairs_find(const struct pairs *pairs, uint32_t first, uint32_t second);

/* ---- Tries ---- */

struct edge {
  uint32_t key, child;
};

struct trie {
  uint32_t nodes, capacity;
  const uint32_t *first;  /* [256] */
  const uint32_t *values; /* [nodes] plus 1, or 0 */
  const struct edge *edges;
};

int slm_trie_open(struct bytes section, struct trie *found);
/* The child of a node, or 0; the root is node 0. */
uint32_t slm_trie_step(const struct trie *trie, uint32_t node, uint8_t byte);

#endif
