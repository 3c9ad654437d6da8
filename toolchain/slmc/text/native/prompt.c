#include "prompt.h"

#include "utf8.h"

enum { NUMBERS = 5 };

int slm_prompt_open(struct bytes section, const struct tokenizer *tokenizer, struct prompt *found) {
  const uint32_t *numbers = (const uint32_t *)(const void *)section.data;
  if (section.size < 4 * NUMBERS)
    return 0;
  found->flags = numbers[0];
  found->end_id = numbers[1];
  found->parts = numbers[2];
  found->fields = numbers[3];
  found->known = numbers[4];
  const size_t left = section.size / 4 - NUMBERS;
  if (found->end_id >= tokenizer->count || found->fields > MOST_FIELDS || found->parts > left ||
      found->known > left - found->parts)
    return 0;
  found->part = numbers + NUMBERS;
  found->known_ids = (const int32_t *)(const void *)(found->part + found->parts);
  for (uint32_t i = 0; i < found->parts; i++) {
    if (found->part[i] != NONE && found->part[i] >= found->fields)
      return 0;
  }
  for (uint32_t i = 0; i < found->known; i++) {
    if ((uint32_t)found->known_ids[i] >= tokenizer->count)
      return 0;
  }
  const size_t head = 4 * ((size_t)NUMBERS + found->parts + found->known);
  if (!slm_strings_open((struct bytes){section.data + head, section.size - head}, &found->strings) ||
      found->strings.count != FIRST_PART + (size_t)found->parts + found->fields)
    return 0;
  for (uint32_t i = 0; i < found->strings.count; i++) {
    size_t size;
    const uint8_t *text = string_at(&found->strings, i, &size);
    if (!utf8_valid(text, size))
      return 0;
  }
  return 1;
}

/* What Python's str.strip takes for white space. */
static int is_stripped(uint32_t c) { return is_white_space(c) || (c >= 0x1c && c <= 0x1f); }

static size_t last_character(const uint8_t *text, size_t end) {
  while ((text[--end] & 0xc0) == 0x80)
    continue;
  return end;
}

/* Without white space around what is in `made` from `begin` on. */
static void trim(struct buffer *made, size_t begin) {
  int length;
  while (made->size > begin) {
    const size_t last = last_character(made->bytes, made->size);
    if (!is_stripped(utf8_read(made->bytes + last, &length)))
      break;
    made->size = last;
  }
  size_t first = begin;
  while (first < made->size && is_stripped(utf8_read(made->bytes + first, &length)))
    first += (size_t)length;
  if (first > begin)
    memmove(made->bytes + begin, made->bytes + first, made->size - first);
  made->size -= first - begin;
}

static int append_string(const struct prompt *prompt, uint32_t index, struct buffer *made) {
  size_t size;
  const uint8_t *text = string_at(&prompt->strings, index, &size);
  return buffer_append(made, text, size);
}

slm_status slm_prompt_render(const struct prompt *prompt, const slm_text *fields, size_t count, struct buffer *made) {
  if (count != prompt->fields)
    return SLM_BAD_ARGUMENT;
  for (size_t i = 0; i < count; i++) {
    if (!fields[i].bytes && fields[i].size)
      return SLM_BAD_ARGUMENT;
    if (!utf8_valid((const uint8_t *)fields[i].bytes, fields[i].size))
      return SLM_BAD_TEXT;
  }
  made->size = 0;
  if (!append_string(prompt, BEFORE, made))
    return SLM_NO_MEMORY;
  const size_t begin = made->size;
  for (uint32_t i = 0; i < prompt->parts; i++) {
    const uint32_t field = prompt->part[i];
    if (!(field == NONE ? append_string(prompt, FIRST_PART + i, made)
                        : buffer_append(made, fields[field].bytes, fields[field].size)))
      return SLM_NO_MEMORY;
  }
  if (prompt->flags & PROMPT_TRIM)
    trim(made, begin);
  return append_string(prompt, AFTER, made) ? SLM_OK : SLM_NO_MEMORY;
}
