/* A regular expression as a deterministic automaton over characters: text/automaton.py writes it.
 *
 *     uint32 states; uint32 classes; a table of characters.h: the class of every character;
 *     uint16 next[states][classes + 1], filled up to a multiple of 4 bytes
 *
 * State 0 is dead, 1 is the start. An entry of `next` is the state after a character of that class (the last one: the
 * end of the text); its bit 15 says that a match ends before that character. The last match on the way is the one. */
#ifndef SLM_AUTOMATON_H
#define SLM_AUTOMATON_H

#include <stddef.h>
#include <stdint.h>

#include "characters.h"

struct automaton {
  struct characters characters;
  const uint16_t *next;
  uint32_t states, classes;
};

/* Bytes that it takes of `size` at `bytes`, which is aligned to 4 and must stay; 0 where it is damaged. */
size_t slm_automaton_open(const uint8_t *bytes, size_t size, struct automaton *found);

/* Where the match ends that begins at `at` of `text`, valid UTF-8 of `size` bytes; `at` where there is none. */
size_t slm_automaton_match(const struct automaton *automaton, const uint8_t *text, size_t at, size_t size);

#endif
