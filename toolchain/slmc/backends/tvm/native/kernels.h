/* The compiled kernels, as ../kernels/levels.py names them; its neighbours tell what each does. */
#ifndef SLM_KERNELS_H
#define SLM_KERNELS_H

#include <stdint.h>

#include "slm.h"

enum { ROW_TILE = 4 /* a matmul of many takes rows by so many */, BLOCK = 32, LANES = 8, MOST_QUERIES = 8 };

/* Rows of activations as the matmuls take them; a row has `depth` blocks of 32 columns. */
struct rows {
  void *values;   /* int8 or float [depth * 32] a row */
  float *scales;  /* [depth] a row */
  void *offsets;  /* 4 bytes [depth] a row */
};

#define ROWS_ARGUMENTS void *values, float *row_scales, void *offsets, int64_t depth
#define MATMUL(name)                                                                                               \
  void (*name)(const uint8_t *codes, const uint16_t *scales, const void *values, const float *row_scales,          \
               const void *offsets, int64_t depth, int64_t scale_shift, float *result, int64_t stride, int64_t add, \
               int64_t n, int64_t first, int64_t last)

#define ATTEND(name)                                                                                               \
  void (*name)(const float *queries, const void *keys, const void *values, const int32_t *begins,                  \
               const int32_t *ends, float *scores, int64_t stride, int64_t head_dim, int64_t start, int64_t stop,  \
               float *result)

struct kernels {
  const char *name;
  int exact;         /* float32 activations and cache */
  int64_t positions; /* of keys that lie side by side in the cache; a context is padded to them */
  int64_t few_queries, many_queries; /* of one call of attend_few, of attend_many */
  int64_t many_rows; /* of weights in a tile of a matmul of many; a matmul of one has one_rows */
  int64_t one_rows;
  void (*normalized)(const float *x, const float *weights, ROWS_ARGUMENTS, float epsilon, int64_t first, int64_t last);
  void (*gated_silu)(const float *x, int64_t stride, ROWS_ARGUMENTS, int64_t first, int64_t last);
  void (*gated_gelu)(const float *x, int64_t stride, ROWS_ARGUMENTS, int64_t first, int64_t last);
  void (*copied)(const float *x, ROWS_ARGUMENTS, int64_t first, int64_t last);
  void (*append)(const float *key, const float *value, void *keys, void *values, int64_t head_dim, int64_t position);
  ATTEND(attend_few);
  ATTEND(attend_many);
  MATMUL(matmul4_one);
  MATMUL(matmul4_many);
  MATMUL(matmul8_one);
  MATMUL(matmul8_many);
};

/* Number `index` of those that this CPU can run, the best first; NULL past the last. */
const struct kernels *slm_kernels_at(size_t index);

#endif
