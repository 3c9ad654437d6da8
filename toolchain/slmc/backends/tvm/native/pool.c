#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

/* A task follows another within microseconds while tokens are read, so a worker looks for it a while before it
 * sleeps: about 50 to 100 microseconds. Nobody spins between calls. */
enum { LOOKS_BEFORE_SLEEP = 4000, LOOKS_BEFORE_YIELD = 1000 };

struct pool {
  pthread_mutex_t lock;
  pthread_cond_t woken;
  pthread_t *threads;
  int count;               /* of threads beside the caller's */
  int asleep;              /* under the lock */
  atomic_uint task;        /* counts up with each; workers wait for it to change */
  atomic_int stop;
  atomic_int busy;         /* workers that have not finished the task */
  atomic_llong next;       /* the first round that nobody took */
  pool_work work;
  void *context;
  int64_t rounds, step;
};

struct worker {
  struct pool *pool;
  int number;
};

static void pause_briefly(void) {
#if defined(__x86_64__)
  __asm__ volatile("pause");
#elif defined(__aarch64__)
  __asm__ volatile("isb" ::: "memory");
#endif
}

static void take_rounds(struct pool *pool, int worker) {
  for (;;) {
    const int64_t first = atomic_fetch_add_explicit(&pool->next, pool->step, memory_order_relaxed);
    if (first >= pool->rounds)
      return;
    const int64_t last = first + pool->step;
    pool->work(pool->context, first, last < pool->rounds ? last : pool->rounds, worker);
  }
}

/* The number of the task after `done`. */
static unsigned wait_for_task(struct pool *pool, unsigned done) {
  for (int look = 0; look < LOOKS_BEFORE_SLEEP; look++) {
    const unsigned task = atomic_load_explicit(&pool->task, memory_order_acquire);
    if (task != done)
      return task;
    pause_briefly();
  }
  pthread_mutex_lock(&pool->lock);
  pool->asleep++;
  while (atomic_load_explicit(&pool->task, memory_order_acquire) == done)
    pthread_cond_wait(&pool->woken, &pool->lock);
  pool->asleep--;
  pthread_mutex_unlock(&pool->lock);
  return atomic_load_explicit(&pool->task, memory_order_acquire);
}

static void *run_worker(void *argument) {
  const struct worker worker = *(struct worker *)argument;
  free(argument);
  struct pool *pool = worker.pool;
  for (unsigned done = 0;;) {
    done = wait_for_task(pool, done);
    if (atomic_load_explicit(&pool->stop, memory_order_relaxed))
      return NULL;
    take_rounds(pool, worker.number);
    atomic_fetch_sub_explicit(&pool->busy, 1, memory_order_release);
  }
}

static void announce(struct pool *pool) {
  /* Under the lock, so that nobody falls asleep between the last look and the wait. */
  pthread_mutex_lock(&pool->lock);
  atomic_fetch_add_explicit(&pool->task, 1, memory_order_release);
  if (pool->asleep)
    pthread_cond_broadcast(&pool->woken);
  pthread_mutex_unlock(&pool->lock);
}

void slm_pool_run(struct pool *pool, pool_work work, void *context, int64_t rounds, int64_t step) {
  if (pool->count == 0 || rounds <= step) {
    work(context, 0, rounds, 0);
    return;
  }
  pool->work = work;
  pool->context = context;
  pool->rounds = rounds;
  pool->step = step;
  atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
  atomic_store_explicit(&pool->busy, pool->count, memory_order_relaxed);
  announce(pool);
  take_rounds(pool, 0);
  for (int look = 0; atomic_load_explicit(&pool->busy, memory_order_acquire); look++) {
    if (look < LOOKS_BEFORE_YIELD)
      pause_briefly();
    else
      sched_yield();
  }
}

static int start_worker(struct pool *pool) {
  struct worker *worker = malloc(sizeof *worker);
  if (!worker)
    return 0;
  *worker = (struct worker){pool, pool->count + 1};
  if (pthread_create(&pool->threads[pool->count], NULL, run_worker, worker)) {
    free(worker);
    return 0;
  }
  pool->count++;
  return 1;
}

struct pool *slm_pool_new(int threads) {
  struct pool *pool = calloc(1, sizeof *pool);
  if (!pool)
    return NULL;
  pthread_mutex_init(&pool->lock, NULL);
  pthread_cond_init(&pool->woken, NULL);
  pool->threads = calloc((size_t)threads, sizeof *pool->threads);
  while (pool->threads && pool->count < threads - 1) {
    if (!start_worker(pool))
      break;
  }
  if (pool->threads && pool->count == threads - 1)
    return pool;
  slm_pool_free(pool);
  return NULL;
}

void slm_pool_free(struct pool *pool) {
  if (!pool)
    return;
  atomic_store_explicit(&pool->stop, 1, memory_order_relaxed);
  announce(pool);
  for (int i = 0; i < pool->count; i++)
    pthread_join(pool->threads[i], NULL);
  pthread_cond_destroy(&pool->woken);
  pthread_mutex_destroy(&pool->lock);
  free(pool->threads);
  free(pool);
}
