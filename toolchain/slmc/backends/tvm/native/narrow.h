/* The rows of a head that a task's labels can need, as a matrix of their own. */
#ifndef SLM_NARROW_H
#define SLM_NARROW_H

#include "weights.h"

/* Bytes of so many rows of a matrix. */
size_t slm_narrow_size(const struct matrix *head, uint32_t group, uint32_t count);

/* Copies of rows of a packed matrix, padded with copies of the last, in memory of slm_narrow_size bytes that is aligned
 * to a cache line. Their products are those of the rows, to the bit. */
struct matrix slm_narrow(const struct matrix *head, uint32_t group, const uint32_t *rows, uint32_t count,
                         uint8_t *memory);

#endif
