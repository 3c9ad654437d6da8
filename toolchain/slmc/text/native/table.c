#include "table.h"

static uint32_t place_of(uint64_t hash, uint32_t capacity) { return (uint32_t)((hash >> 32) * capacity >> 32); }

static uint64_t hash_bytes(const uint8_t *bytes, size_t size) {
  uint64_t value = 0xcbf29ce484222325u; /* FNV-1a */
  for (size_t i = 0; i < size; i++)
    value = (value ^ bytes[i]) * 0x100000001b3u;
  return value;
}

static uint64_t hash_number(uint64_t number) { return number * 0x9e3779b97f4a7c15u; }

static uint32_t number_at(struct bytes section, size_t index) {
  uint32_t number;
  memcpy(&number, section.data + 4 * index, sizeof number);
  return number;
}

static const uint32_t *numbers(struct bytes section, size_t index) {
  return (const uint32_t *)(const void *)(section.data + 4 * index);
}

int slm_strings_open(struct bytes section, struct strings *found) {
  if (section.size < 8)
    return 0;
  found->count = number_at(section, 0);
  if ((section.size - 4) / 4 < (size_t)found->count + 1)
    return 0;
  found->begins = numbers(section, 1);
  found->bytes = section.data + 4 + 4 * ((size_t)found->count + 1);
  const size_t size = section.size - (size_t)(found->bytes - section.data);
  for (uint32_t i = 0; i < found->count; i++) {
    if (found->begins[i] > found->begins[i + 1])
      return 0;
  }
  return found->begins[0] == 0 && found->begins[found->count] == size;
}

int slm_words_open(struct bytes section, uint32_t limit, struct words *found) {
  if (section.size < 8)
    return 0;
  found->capacity = number_at(section, 0);
  found->slots = numbers(section, 2);
  if (!found->capacity || (section.size - 8) / 4 != found->capacity)
    return 0;
  uint32_t empty = 0;
  for (uint32_t i = 0; i < found->capacity; i++) {
    empty += !found->slots[i];
    if (found->slots[i] > limit)
      return 0;
  }
  return empty > 0;
}

uint32_t slm_words_find(const struct words *words, const struct strings *strings, size_t skipped, const uint8_t *word,
                        size_t size) {
  uint32_t place = place_of(hash_bytes(word, size), words->capacity);
  for (;; place = place + 1 < words->capacity ? place + 1 : 0) {
    if (!words->slots[place])
      return NONE;
    size_t length;
    const uint32_t id = words->slots[place] - 1;
    const uint8_t *bytes = string_at(strings, id, &length);
    if (length == size + skipped && !memcmp(bytes + skipped, word, size))
      return id;
  }
}

int slm_pairs_open(struct bytes section, uint32_t limit, struct pairs *found) {
  if (section.size < 8)
    return 0;
  found->capacity = number_at(section, 0);
  found->slots = (const struct pair *)(const void *)(section.data + 8);
  if (!found->capacity || (section.size - 8) / sizeof *found->slots != found->capacity)
    return 0;
  uint32_t empty = 0;
  for (uint32_t i = 0; i < found->capacity; i++) {
    const struct pair *pair = &found->slots[i];
    empty += pair->first == NONE;
    if (pair->first != NONE && (pair->first >= limit || pair->second >= limit || pair->id >= limit))
      return 0;
  }
  return empty > 0;
}

const struct pair *slm_pairs_find(const struct pairs *pairs, uint32_t first, uint32_t second) {
  uint32_t place = place_of(hash_number((uint64_t)first << 32 | second), pairs->capacity);
  for (;; place = place + 1 < pairs->capacity ? place + 1 : 0) {
    const struct pair *pair = &pairs->slots[place];
    if (pair->first == NONE)
      return NULL;
    if (pair->first == first && pair->second == second)
      return pair;
  }
}

int slm_trie_open(struct bytes section, struct trie *found) {
  const size_t head = 4 * (2 + 256);
  if (section.size < head)
    return 0;
  found->nodes = number_at(section, 0);
  found->capacity = number_at(section, 1);
  const size_t left = section.size - head, values = 4 * (size_t)found->nodes;
  if (!found->nodes || !found->capacity || found->nodes >= 1u << 24 || left < values ||
      (left - values) / sizeof *found->edges != found->capacity)
    return 0;
  found->first = numbers(section, 2);
  found->values = numbers(section, 2 + 256);
  found->edges = (const struct edge *)(const void *)(section.data + head + values);
  for (int i = 0; i < 256; i++) {
    if (found->first[i] >= found->nodes)
      return 0;
  }
  uint32_t empty = 0;
  for (uint32_t i = 0; i < found->capacity; i++) {
    empty += found->edges[i].key == NONE;
    if (found->edges[i].key != NONE && found->edges[i].child >= found->nodes)
      return 0;
  }
  return empty > 0;
}

uint32_t slm_trie_step(const struct trie *trie, uint32_t node, uint8_t byte) {
  if (!node)
    return trie->first[byte];
  const uint32_t key = node << 8 | byte;
  uint32_t place = place_of(hash_number(key), trie->capacity);
  for (;; place = place + 1 < trie->capacity ? place + 1 : 0) {
    const struct edge *edge = &trie->edges[place];
    if (edge->key == NONE)
      return 0;
    if (edge->key == key)
      return edge->child;
  }
}
