#include "automaton.h"

enum { DEAD = 0, START = 1, MATCHED = 0x8000, TARGET = 0x7fff, MOST_CLASSES = 255 };

/* No entry leaves the table, and the start's have no match, as that would be an empty one. */
static int entries_are_sound(const struct automaton *automaton) {
  const size_t width = (size_t)automaton->classes + 1;
  for (size_t i = 0; i < automaton->states * width; i++) {
    if ((automaton->next[i] & TARGET) >= automaton->states)
      return 0;
  }
  for (size_t i = 0; i < width; i++) {
    if (automaton->next[START * width + i] & MATCHED)
      return 0;
  }
  return 1;
}

size_t slm_automaton_open(const uint8_t *bytes, size_t size, struct automaton *found) {
  uint32_t head[2];
  if (size < sizeof head)
    return 0;
  memcpy(head, bytes, sizeof head);
  const uint32_t states = head[0], classes = head[1];
  if (states <= START || states > TARGET + 1 || classes < 1 || classes > MOST_CLASSES)
    return 0;
  const size_t table = characters_open(bytes + sizeof head, size - sizeof head, classes, &found->characters);
  const size_t at = sizeof head + table, entries = (size_t)states * (classes + 1);
  const size_t used = at + (entries * sizeof(uint16_t) + 3) / 4 * 4;
  if (!table || size < used)
    return 0;
  found->next = (const uint16_t *)(const void *)(bytes + at);
  found->states = states;
  found->classes = classes;
  return entries_are_sound(found) ? used : 0;
}

size_t slm_automaton_match(const struct automaton *automaton, const uint8_t *text, size_t at, size_t size) {
  const size_t width = (size_t)automaton->classes + 1;
  size_t state = START, end = at;
  while (at < size) {
    int length;
    const uint32_t character = utf8_read(text + at, &length);
    const uint16_t entry = automaton->next[state * width + character_value(&automaton->characters, character)];
    if (entry & MATCHED)
      end = at;
    state = entry & TARGET;
    if (state == DEAD)
      return end;
    at += (size_t)length;
  }
  return automaton->next[state * width + automaton->classes] & MATCHED ? at : end;
}
