/* Keys and values of tokens that every prompt begins with, as a file: read by the model once, where it is built.
 *
 *     byte 0    8 bytes   53 4C 4D 50 0D 0A 1A 0A ("SLMP", then bytes that a transfer as text would change)
 *     8         uint32    version: 1
 *     12        uint32    bytes of a number: 2, float16, or 4, float32
 *     16        uint64    bytes of the whole file
 *     24        uint64    SLM_CODE of the library whose kernels made it: they give the same bits on every CPU
 *     32        uint32    tokens, layers, heads of keys, elements of a head
 *     48        32 bytes  the weight file's SHA-256
 *     80        32 bytes  SHA-256 of all bytes from 112 to the end
 *     112       int32     the tokens
 *     next multiple of 16: [layers, heads, tokens, 2, elements], keys then values */
#ifndef SLM_PREFIX_H
#define SLM_PREFIX_H

#include "session.h"

/* The bytes of a file for the first `count` tokens that a session holds, which are `ids`. */
size_t slm_prefix_size(const slm_session *session, size_t count);
void slm_prefix_write(const slm_session *session, const int32_t *ids, size_t count, uint8_t *bytes);

/* Put what a file holds into an empty session. SLM_BAD_FILE where it is another model's, library's or prompt's, or
 * damaged: then the session is empty still. */
slm_status slm_prefix_read(slm_session *session, const char *path, const int32_t *ids, size_t count, slm_error *error);

#endif
