/* UTF-8 that is known to be valid, and the check that makes it so. */
#ifndef SLM_UTF8_H
#define SLM_UTF8_H

#include <stddef.h>
#include <stdint.h>

enum { UTF8_MOST = 4 /* bytes of a character */, CODE_POINTS = 0x110000 };

/* Bytes of the character that begins with `first`. */
static inline int utf8_length(uint8_t first) { return first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4; }

/* The character at `text`; *length is how many bytes it has. */
static inline uint32_t utf8_read(const uint8_t *text, int *length) {
  const uint32_t first = text[0];
  if (first < 0x80) {
    *length = 1;
    return first;
  }
  if (first < 0xe0) {
    *length = 2;
    return (first & 0x1f) << 6 | (text[1] & 0x3f);
  }
  if (first < 0xf0) {
    *length = 3;
    return (first & 0x0f) << 12 | (uint32_t)(text[1] & 0x3f) << 6 | (text[2] & 0x3f);
  }
  *length = 4;
  return (first & 0x07) << 18 | (uint32_t)(text[1] & 0x3f) << 12 | (uint32_t)(text[2] & 0x3f) << 6 | (text[3] & 0x3f);
}

/* Up to UTF8_MOST bytes; how many. */
static inline int utf8_write(uint8_t *text, uint32_t character) {
  if (character < 0x80) {
    text[0] = (uint8_t)character;
    return 1;
  }
  const int more = character < 0x800 ? 1 : character < 0x10000 ? 2 : 3;
  text[0] = (uint8_t)((0xff00 >> (more + 1) & 0xff) | character >> 6 * more);
  for (int i = 1; i <= more; i++)
    text[i] = (uint8_t)(0x80 | (character >> 6 * (more - i) & 0x3f));
  return more + 1;
}

/* Bytes of the valid character at `text`, of which `left` are there; 0 where there is none (Unicode 16, table 3-7).
 * Then *bad is how many bytes a reader replaces by one U+FFFD: the longest start of a character, or one byte. */
static inline int utf8_check(const uint8_t *text, size_t left, int *bad) {
  const uint8_t first = text[0];
  *bad = 1;
  if (first < 0x80)
    return 1;
  if (first < 0xc2 || first > 0xf4)
    return 0;
  const int length = utf8_length(first);
  const uint8_t low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
  const uint8_t high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
  for (int i = 1; i < length; i++) {
    const uint8_t least = i == 1 ? low : 0x80, most = i == 1 ? high : 0xbf;
    if ((size_t)i >= left || text[i] < least || text[i] > most) {
      *bad = i;
      return 0;
    }
  }
  return length;
}

/* Unicode's property White_Space. */
static inline int is_white_space(uint32_t c) {
  return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
         c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static inline int utf8_valid(const uint8_t *text, size_t size) {
  for (size_t at = 0; at < size;) {
    int bad;
    const int length = utf8_check(text + at, size - at, &bad);
    if (!length)
      return 0;
    at += (size_t)length;
  }
  return 1;
}

#endif
