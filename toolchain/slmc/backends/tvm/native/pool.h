/* A few threads that share the rounds of a loop. */
#ifndef SLM_POOL_H
#define SLM_POOL_H

#include <stdint.h>

struct pool;

/* Does rounds first to last - 1; `worker` is 0 to threads - 1. */
typedef void (*pool_work)(void *context, int64_t first, int64_t last, int worker);

/* NULL where there is no memory or no more threads. One thread is the caller's own. */
struct pool *slm_pool_new(int threads);
void slm_pool_free(struct pool *pool);

/* All rounds, `step` at a time to whoever is free, so that a slow core does less; returns when they are done. */
void slm_pool_run(struct pool *pool, pool_work work, void *context, int64_t rounds, int64_t step);

#endif
