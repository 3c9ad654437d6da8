/* The weight file, as docs/weight-file.md lays it out and backends/tvm/weights.py writes it. */
#ifndef SLM_WEIGHTS_H
#define SLM_WEIGHTS_H

#include "slm.h"

enum { GATE_SILU = 0, GATE_GELU_TANH = 1 };
enum { ACTIVATIONS_INT8 = 0, ACTIVATIONS_FLOAT32 = 1 };
#define NO_ROPE UINT32_MAX

/* Bytes 64 to 127 of the file. */
struct config {
  uint32_t vocab_size, hidden_size, intermediate_size, heads, kv_heads, head_dim, rotary_dim, context;
  uint32_t group, gate, activations, ropes;
  float rms_eps, embedding_scale, attention_scale;
  uint32_t unused;
};

/* Packed as layout.py tells, rows padded to a multiple of 32. */
struct matrix {
  const uint8_t *codes;
  const uint16_t *scales; /* bfloat16 */
  int64_t rows, columns;
  int bits;
};

struct layer {
  uint32_t rope;   /* which table, or NO_ROPE */
  uint32_t window; /* positions that a token sees, itself among them; 0: all */
  const float *attention_norm, *mlp_norm;
  const float *attention_post_norm, *mlp_post_norm;  /* NULL where there are none */
  const float *qkv_bias, *q_norm, *k_norm;           /* the same */
  struct matrix qkv, o, gate_up, down;
};

struct rope {
  const float *cosines, *sines; /* [context, rotary_dim / 2] */
};

struct weights {
  const uint8_t *bytes;
  size_t size;
  struct config config;
  uint32_t layer_count;
  struct layer *layers;
  struct rope *ropes;
  struct matrix embedding, head; /* the head is the embedding where the file has none */
  const float *norm;
};

/* Read the header of a file in memory; every tensor is checked to be there, of its shape and within the file.
 * `weights` keeps pointers into `bytes`. On success slm_weights_free gives back what was taken. */
slm_status slm_weights_parse(const uint8_t *bytes, size_t size, int verify, struct weights *weights, slm_error *error);
void slm_weights_free(struct weights *weights);

/* Rows of a matrix as they are stored. */
int64_t slm_padded_rows(int64_t rows);

#endif
