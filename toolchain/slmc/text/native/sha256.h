/* SHA-256, FIPS 180-4. */
#ifndef SLM_SHA256_H
#define SLM_SHA256_H

#include <stddef.h>
#include <stdint.h>

void slm_sha256(const uint8_t *bytes, size_t size, uint8_t digest[32]);

#endif
