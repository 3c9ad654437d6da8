#include "golden.h"

#include <stdio.h>

#include "utf8.h"

enum { NUMBERS = 3 };

int slm_golden_open(struct bytes section, uint32_t fields, struct golden *found) {
  const uint32_t *numbers = (const uint32_t *)(const void *)section.data;
  if (section.size < 4 * NUMBERS)
    return 0;
  const uint32_t ids = numbers[2];
  found->count = numbers[0];
  found->fields = numbers[1];
  const uint64_t words = NUMBERS + 4 * (uint64_t)found->count + ids;
  if (found->fields != fields || section.size / 4 < words)
    return 0;
  found->items = (const struct golden_item *)(const void *)(numbers + NUMBERS);
  found->ids = (const int32_t *)(const void *)(found->items + found->count);
  for (uint32_t i = 0; i < found->count; i++) {
    if (found->items[i].begin > ids || found->items[i].count > ids - found->items[i].begin)
      return 0;
  }
  const struct bytes left = {section.data + 4 * words, section.size - 4 * (size_t)words};
  return slm_strings_open(left, &found->strings) && found->strings.count == found->count * ((uint64_t)fields + 1);
}

static slm_text text_at(const struct golden *golden, uint32_t index) {
  size_t size;
  const uint8_t *bytes = string_at(&golden->strings, index, &size);
  return (slm_text){(const char *)bytes, size};
}

void slm_golden_fields(const struct golden *golden, uint32_t item, slm_text *fields) {
  for (uint32_t i = 0; i < golden->fields; i++)
    fields[i] = text_at(golden, item * golden->fields + i);
}

slm_text slm_golden_name(const struct golden *golden, uint32_t item) {
  return text_at(golden, golden->count * golden->fields + item);
}

int slm_golden_same_ids(const struct golden *golden, uint32_t item, const int32_t *ids, size_t count,
                        slm_check *check) {
  const struct golden_item *wanted = &golden->items[item];
  size_t same = 0;
  while (same < count && same < wanted->count && ids[same] == golden->ids[wanted->begin + same])
    same++;
  if (same == count && same == wanted->count)
    return 1;
  const slm_text name = slm_golden_name(golden, item);
  check->failed = (int32_t)item;
  snprintf(check->text, sizeof check->text,
           "item %.*s: the prompt has other tokens from place %zu on: %zu of them, not %u as where it was built",
           (int)(name.size < 64 ? name.size : 64), name.bytes, same, count, wanted->count);
  return 0;
}
