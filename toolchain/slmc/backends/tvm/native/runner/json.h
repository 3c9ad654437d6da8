/* JSON (RFC 8259) of one line, read from its start to its end; what is not JSON, or not what was asked for, leaves
 * `bad` set, after which nothing is read. */
#ifndef SLM_JSON_H
#define SLM_JSON_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "buffer.h"

struct json {
  const uint8_t *at, *end;
  int bad;
};

struct json json_of(const void *bytes, size_t size);
/* Past the value there is nothing but white space. */
int json_done(struct json *json);

/* Of an object the members one by one: `key` is the next one's, in UTF-8; 0 after the last. Each is to be read, or
 * skipped. Begin with *first set. */
int json_member(struct json *json, int *first, struct buffer *key);
/* The same of an array's elements. */
int json_element(struct json *json, int *first);
void json_skip(struct json *json);
/* 1 and past it where the value is null. */
int json_null(struct json *json);
int json_true(struct json *json); /* 1 for true, 0 for false */
void json_text(struct json *json, struct buffer *text);
/* A whole number from `least` on that fits 32 bits. */
int32_t json_number(struct json *json, int32_t least);

/* A text with quotes, escaped. */
void json_write(FILE *file, const void *bytes, size_t size);

#endif
