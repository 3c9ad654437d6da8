/* Bytes that grow. */
#ifndef SLM_BUFFER_H
#define SLM_BUFFER_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct buffer {
  uint8_t *bytes;
  size_t size, capacity;
};

/* Room for `more` bytes after those that are there; 0 where there is no memory. */
static inline int buffer_reserve(struct buffer *buffer, size_t more) {
  if (buffer->capacity - buffer->size >= more)
    return 1;
  if (more > SIZE_MAX / 4 - buffer->size)
    return 0;
  const size_t capacity = 2 * (buffer->size + more) + 64;
  uint8_t *bytes = realloc(buffer->bytes, capacity);
  if (!bytes)
    return 0;
  buffer->bytes = bytes;
  buffer->capacity = capacity;
  return 1;
}

/* 0 where there is no memory. */
static inline int buffer_append(struct buffer *buffer, const void *bytes, size_t size) {
  if (!buffer_reserve(buffer, size))
    return 0;
  if (size)
    memcpy(buffer->bytes + buffer->size, bytes, size);
  buffer->size += size;
  return 1;
}

static inline void buffer_free(struct buffer *buffer) {
  free(buffer->bytes);
  *buffer = (struct buffer){0};
}

#endif
