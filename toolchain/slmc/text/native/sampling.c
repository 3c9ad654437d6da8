#include "sampling.h"

#include <math.h>
#include <string.h>

/* ---- Numbers ---------------------------------------------------------------------------------------------------- */

double slm_log_sum_exp(const float *logits, size_t count) {
  float top = logits[0];
  double sum = 0;
  for (size_t i = 0; i < count; i++) {
    if (!isfinite(logits[i]))
      return NAN;
    top = logits[i] > top ? logits[i] : top;
  }
  for (size_t i = 0; i < count; i++)
    sum += exp((double)logits[i] - top);
  return top + log(sum);
}

/* SplitMix64, https://prng.di.unimi.it/splitmix64.c */
static uint64_t next_random(uint64_t *state) {
  uint64_t z = *state += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

/* e to the power of x, which is at most 0: libm's differ in their last bits. */
static double power_of_e(double x) {
  /* 1 / 13!, 1 / 12! and so on: the next term is below half of the last bit. */
  static const double terms[] = {
      1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040,
      1.0 / 720,        1.0 / 120,       1.0 / 24,       1.0 / 6,       0.5,          1,           1,
  };
  if (!(x > -700))
    return 0;
  const int32_t twos = (int32_t)(x * 1.4426950408889634 - 0.5);
  /* ln 2 in two parts, as fdlibm splits it. */
  const double rest = x - twos * 0.693147180369123816490 - twos * 1.90821492927058770002e-10;
  double sum = 0;
  for (size_t i = 0; i < sizeof terms / sizeof *terms; i++)
    sum = sum * rest + terms[i];
  const uint64_t bits = (uint64_t)(1023 + twos) << 52;
  double scale;
  memcpy(&scale, &bits, sizeof scale);
  return sum * scale;
}

/* ---- The likeliest first: a heap --------------------------------------------------------------------------------- */

static int is_before(const struct candidate *a, const struct candidate *b) {
  return a->logit > b->logit || (a->logit == b->logit && a->id < b->id);
}

static void sink(struct candidate *heap, size_t count, size_t at) {
  const struct candidate moved = heap[at];
  for (size_t child; (child = 2 * at + 1) < count; at = child) {
    if (child + 1 < count && is_before(&heap[child + 1], &heap[child]))
      child++;
    if (!is_before(&heap[child], &moved))
      break;
    heap[at] = heap[child];
  }
  heap[at] = moved;
}

static void make_heap(struct candidate *heap, size_t count) {
  for (size_t at = count / 2; at-- > 0;)
    sink(heap, count, at);
}

/* The first of a heap of `count` goes behind the others. */
static void take_first(struct candidate *heap, size_t count) {
  const struct candidate first = heap[0];
  heap[0] = heap[count - 1];
  heap[count - 1] = first;
  sink(heap, count - 1, 0);
}

/* ---- Taking one -------------------------------------------------------------------------------------------------- */

static struct candidate likeliest(const struct candidate *candidates, size_t count) {
  struct candidate best = candidates[0];
  for (size_t i = 1; i < count; i++) {
    if (is_before(&candidates[i], &best))
      best = candidates[i];
  }
  return best;
}

static double weight(const struct sampling *sampling, const struct candidate *candidate, float top) {
  return power_of_e(((double)candidate->logit - top) / sampling->temperature);
}

/* One by its weight, counted from the last: there the likeliest are. */
static int32_t draw(const struct sampling *sampling, uint64_t *random, const struct candidate *candidates, size_t count,
                    float top) {
  double sum = 0;
  for (size_t i = count; i-- > 0;)
    sum += weight(sampling, &candidates[i], top);
  const double aim = (double)(next_random(random) >> 11) * 0x1p-53 * sum;
  double passed = 0;
  for (size_t i = count; i-- > 1;) {
    passed += weight(sampling, &candidates[i], top);
    if (passed > aim)
      return candidates[i].id;
  }
  return candidates[0].id;
}

/* The first that have their share of what all weigh: how many, now the last of `candidates`. */
static size_t take_share(const struct sampling *sampling, struct candidate *candidates, size_t count, int in_order,
                         float top) {
  double whole = 0, sum = 0;
  for (size_t i = count; i-- > 0;)
    whole += weight(sampling, &candidates[i], top);
  if (!in_order)
    make_heap(candidates, count);
  size_t taken = 0;
  while (taken < count && sum < sampling->top_p * whole) {
    if (!in_order)
      take_first(candidates, count - taken);
    taken++;
    sum += weight(sampling, &candidates[count - taken], top);
  }
  return taken;
}

int32_t slm_sample(const struct sampling *sampling, uint64_t *random, struct candidate *candidates, size_t count) {
  const struct candidate best = likeliest(candidates, count);
  if (sampling->temperature == 0)
    return best.id;
  const int in_order = sampling->top_k && sampling->top_k < count;
  size_t kept = in_order ? sampling->top_k : count;
  if (in_order) {
    make_heap(candidates, count);
    for (size_t taken = 0; taken < kept; taken++)
      take_first(candidates, count - taken);
  }
  if (sampling->top_p < 1) {
    candidates += count - kept;
    count = kept;
    kept = take_share(sampling, candidates, count, in_order, best.logit);
  }
  return draw(sampling, random, candidates + count - kept, kept, best.logit);
}
