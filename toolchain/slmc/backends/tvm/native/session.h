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

/* Nanoseconds of a clock that only goes forward. */
uint64_t slm_now(void);
/* Memory that the system gives when it is first touched: a long context costs nothing until it is read. NULL where
 * there is none. */
void *slm_take_memory(uint64_t size);
/* Read tokens that fit, without logits; on failure the position stays. */
slm_status slm_session_read(slm_session *session, const int32_t *ids, size_t count);
/* The logits after the last of so many tokens that were just read; those that are no numbers make them unread. */
slm_status slm_session_find_logits(slm_session *session, size_t count);

/* Read up to CHUNK tokens after the position, which stays. SLM_CANCELLED where asked. With `last` the last one's logits
 * may be asked for; otherwise only keys and values are made. */
slm_status slm_forward(slm_session *session, const int32_t *ids, int64_t count, int last);

/* Tokens that continue what was read in several ways, each with the keys and values of all layers. */
struct branches {
  int64_t most;         /* of tokens */
  int32_t *parents;     /* [most]: the token before, or -1 for the session's last one */
  float *keys_values;   /* [layers, most, 2, kv_heads * head_dim] */
};

/* The same for tokens first to first + count - 1 of `branches`, whose parents were read or are among them; logits may be
 * asked of the `wanted` ones, their places among these in ascending order. */
slm_status slm_forward_branches(slm_session *session, struct branches *branches, const int32_t *ids, int64_t first,
                                int64_t count, const int64_t *wanted, int64_t wanted_count);

/* Products of a head with what the last forward call made of the tokens whose logits may be asked for, all `count` of
 * them: float [count, head->rows]. */
void slm_forward_head(slm_session *session, const struct matrix *head, int64_t count, float *logits);

#endif
