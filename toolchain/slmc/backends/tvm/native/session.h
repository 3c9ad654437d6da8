/* A session's memory: what forward.c works on. */
#ifndef SLM_SESSION_H
#define SLM_SESSION_H

#include <stdatomic.h>

#include "model.h"
#include "pool.h"

enum { CHUNK = 128 /* tokens that are read at once: each weight is used often, all stay in a CPU's cache */ };

struct slm_session {
  const slm_model *model;
  struct pool *pool;
  int threads;
  int64_t context, padded_context;
  int64_t position;
  int has_logits;
  atomic_int cancelled;

  /* float32, rows of up to CHUNK tokens */
  float *x, *branch;  /* [hidden_size] */
  float *qkv;         /* [padded rows of qkv] */
  float *attended;    /* [heads * head_dim] */
  float *gate_up;     /* [2 * intermediate_size] */
  struct rows held;   /* of the widest matrix */
  float *logits, *kept_logits; /* [padded vocab_size] */
  float *per_thread;  /* [threads, per_thread_floats]: queries, results, scores */
  int64_t per_thread_floats;
  uint8_t *keys, *values; /* [layers, kv_heads, padded_context * head_dim] */

  uint8_t *memory; /* holds all of the above */
  slm_stats stats;
  slm_error error;
};

/* Read up to CHUNK tokens after the position, which stays; with `last` the logits follow. SLM_CANCELLED where asked. */
slm_status slm_forward(slm_session *session, const int32_t *ids, int64_t count, int last);

#endif
