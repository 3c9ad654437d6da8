/* A small number for every character: text/characters.py writes it.
 *
 *     uint32 pages; uint32 zero; uint16 page_of[4352]; uint8 value[pages][256]
 *
 * Character c has value[page_of[c >> 8]][c & 255]. */
#ifndef SLM_CHARACTERS_H
#define SLM_CHARACTERS_H

#include <string.h>

#include "utf8.h"

enum { PAGE = 256, PAGES = CODE_POINTS / PAGE };

struct characters {
  const uint16_t *page_of;
  const uint8_t *values;
};

/* Bytes that it takes of `size` at `bytes`, which is aligned to 4; 0 where it is damaged or a value is `limit` or
 * more. */
static inline size_t characters_open(const uint8_t *bytes, size_t size, uint32_t limit, struct characters *found) {
  uint32_t pages;
  const size_t head = 8 + PAGES * sizeof(uint16_t);
  if (size < head)
    return 0;
  memcpy(&pages, bytes, sizeof pages);
  if (pages > PAGES || size < head + (size_t)pages * PAGE)
    return 0;
  found->page_of = (const uint16_t *)(const void *)(bytes + 8);
  found->values = bytes + head;
  for (uint32_t i = 0; i < PAGES; i++) {
    if (found->page_of[i] >= pages)
      return 0;
  }
  for (size_t i = 0; i < (size_t)pages * PAGE; i++) {
    if (found->values[i] >= limit)
      return 0;
  }
  return head + (size_t)pages * PAGE;
}

static inline uint8_t character_value(const struct characters *table, uint32_t character) {
  return table->values[(size_t)table->page_of[character >> 8] * PAGE + (character & 0xff)];
}

#endif
