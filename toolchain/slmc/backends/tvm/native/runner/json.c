#include "json.h"

#include <string.h>

#include "utf8.h"

enum { DEEPEST = 32 };

struct json json_of(const void *bytes, size_t size) {
  const uint8_t *at = bytes;
  return (struct json){at, at + size, !utf8_valid(at, size)};
}

static void skip_space(struct json *json) {
  while (json->at < json->end && memchr(" \t\r\n", *json->at, 4))
    json->at++;
}

/* The next character that is not white space; 0 at the end, and where all is bad. */
static int next(struct json *json) {
  skip_space(json);
  return json->bad || json->at == json->end ? 0 : *json->at;
}

static int passed(struct json *json, int c) {
  if (next(json) != c)
    return 0;
  json->at++;
  return 1;
}

static void need(struct json *json, int c) {
  if (!passed(json, c))
    json->bad = 1;
}

int json_done(struct json *json) {
  skip_space(json);
  return !json->bad && json->at == json->end;
}

/* ---- Words and numbers ------------------------------------------------------------------------------------------ */

static int word(struct json *json, const char *text) {
  const size_t size = strlen(text);
  if (next(json) != text[0] || (size_t)(json->end - json->at) < size || memcmp(json->at, text, size))
    return 0;
  json->at += size;
  return 1;
}

int json_null(struct json *json) { return word(json, "null"); }

int json_true(struct json *json) {
  if (word(json, "true"))
    return 1;
  json->bad |= !word(json, "false");
  return 0;
}

static int digit(const struct json *json) { return json->at < json->end && *json->at >= '0' && *json->at <= '9'; }

static void skip_digits(struct json *json) {
  json->bad |= !digit(json);
  while (digit(json))
    json->at++;
}

static void skip_number(struct json *json) {
  if (*json->at == '-')
    json->at++;
  const uint8_t *first = json->at;
  skip_digits(json);
  if (!json->bad && *first == '0' && json->at - first > 1)
    json->bad = 1;
  if (json->at < json->end && *json->at == '.') {
    json->at++;
    skip_digits(json);
  }
  if (json->at < json->end && (*json->at | 32) == 'e') {
    json->at++;
    if (json->at < json->end && (*json->at == '+' || *json->at == '-'))
      json->at++;
    skip_digits(json);
  }
}

int32_t json_number(struct json *json, int32_t least) {
  int64_t value = 0;
  if (!next(json) || !digit(json) || (*json->at == '0' && json->end - json->at > 1 && json->at[1] >= '0' && json->at[1] <= '9'))
    json->bad = 1;
  while (!json->bad && digit(json)) {
    value = value * 10 + (*json->at++ - '0');
    json->bad |= value > INT32_MAX;
  }
  json->bad |= value < least || (json->at < json->end && memchr(".eE", *json->at, 3) != NULL);
  return json->bad ? least : (int32_t)value;
}

/* ---- Texts ------------------------------------------------------------------------------------------------------ */

static uint32_t hexadecimal(struct json *json) {
  uint32_t value = 0;
  for (int i = 0; i < 4; i++, json->at++) {
    const int c = json->at < json->end ? *json->at : 0, letter = c | 32;
    if (c >= '0' && c <= '9')
      value = value * 16 + (uint32_t)(c - '0');
    else if (letter >= 'a' && letter <= 'f')
      value = value * 16 + (uint32_t)(letter - 'a' + 10);
    else {
      json->bad = 1;
      return 0;
    }
  }
  return value;
}

/* After a backslash and u; half a surrogate pair is no text. */
static uint32_t code_point(struct json *json) {
  const uint32_t unit = hexadecimal(json);
  if ((unit & 0xf800) != 0xd800)
    return unit;
  if ((unit & 0x400) || json->end - json->at < 6 || json->at[0] != '\\' || json->at[1] != 'u') {
    json->bad = 1;
    return 0;
  }
  json->at += 2;
  const uint32_t low = hexadecimal(json);
  json->bad |= (low & 0xfc00) != 0xdc00;
  return 0x10000 + ((unit & 0x3ff) << 10) + (low & 0x3ff);
}

static void add(struct json *json, struct buffer *text, uint32_t c) {
  uint8_t bytes[4];
  json->bad |= !buffer_append(text, bytes, (size_t)utf8_write(bytes, c));
}

static void escape(struct json *json, struct buffer *text) {
  static const char names[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
  const int c = json->at < json->end ? *json->at++ : 0;
  const char *found = c ? strchr(names, c) : NULL;
  if (c == 'u')
    add(json, text, code_point(json));
  else if (found)
    add(json, text, (uint32_t)meant[found - names]);
  else
    json->bad = 1;
}

void json_text(struct json *json, struct buffer *text) {
  text->size = 0;
  need(json, '"');
  while (!json->bad) {
    const uint8_t *begin = json->at;
    while (json->at < json->end && *json->at >= 32 && *json->at != '"' && *json->at != '\\')
      json->at++;
    json->bad |= !buffer_append(text, begin, (size_t)(json->at - begin));
    const int c = json->at < json->end ? *json->at++ : 0;
    if (c == '"')
      return;
    if (c == '\\')
      escape(json, text);
    else
      json->bad = 1;
  }
}

void json_write(FILE *file, const void *bytes, size_t size) {
  fputc('"', file);
  for (const uint8_t *c = bytes, *end = c + size; c < end; c++) {
    if (*c < 32)
      fprintf(file, "\\u%04x", *c);
    else
      fprintf(file, *c == '"' || *c == '\\' ? "\\%c" : "%c", *c);
  }
  fputc('"', file);
}

/* ---- Objects and arrays ----------------------------------------------------------------------------------------- */

/* Past what stands before the next one; 0 where there is none. */
static int another(struct json *json, int *first, int open, int close) {
  if (*first)
    need(json, open);
  if (passed(json, close) || json->bad)
    return 0;
  if (!*first)
    need(json, ',');
  *first = 0;
  return !json->bad;
}

int json_member(struct json *json, int *first, struct buffer *key) {
  if (!another(json, first, '{', '}'))
    return 0;
  json_text(json, key);
  need(json, ':');
  return !json->bad;
}

int json_element(struct json *json, int *first) { return another(json, first, '[', ']'); }

static void skip_text(struct json *json) {
  struct buffer text = {0};
  json_text(json, &text);
  buffer_free(&text);
}

static void skip(struct json *json, int depth) {
  const int c = next(json);
  int first = 1;
  if (depth == DEEPEST || !c)
    json->bad = 1;
  else if (c == '"')
    skip_text(json);
  else if (c == '[')
    while (json_element(json, &first))
      skip(json, depth + 1);
  else if (c == '{') {
    struct buffer key = {0};
    while (json_member(json, &first, &key))
      skip(json, depth + 1);
    buffer_free(&key);
  } else if (c == '-' || digit(json))
    skip_number(json);
  else
    json->bad |= !json_null(json) && !word(json, "true") && !word(json, "false");
}

void json_skip(struct json *json) { skip(json, 0); }
