#include "kernels.h"

#include "cpu.h"

/* slm_levels.h is written beside this file's object from kernels/levels.py: LEVEL(name, exact, positions,
 * few_queries, many_queries, many_rows, one_rows) for each level of this architecture, the best first. */
#define LEVEL(level, ...) DECLARE(level)
#define DECLARE(level)                                                                                              \
  extern void slm_##level##_normalized(const float *, const float *, void *, float *, void *, int64_t, float,      \
                                       int64_t, int64_t);                                                          \
  extern void slm_##level##_gated_silu(const float *, int64_t, void *, float *, void *, int64_t, int64_t, int64_t); \
  extern void slm_##level##_gated_gelu(const float *, int64_t, void *, float *, void *, int64_t, int64_t, int64_t); \
  extern void slm_##level##_copied(const float *, void *, float *, void *, int64_t, int64_t, int64_t);             \
  extern void slm_##level##_append(const float *, const float *, void *, void *, int64_t, int64_t);                \
  DECLARE_ATTEND(level, attend_few)                                                                                \
  DECLARE_ATTEND(level, attend_many)                                                                               \
  DECLARE_MATMUL(level, matmul4_one)                                                                               \
  DECLARE_MATMUL(level, matmul4_many)                                                                              \
  DECLARE_MATMUL(level, matmul8_one)                                                                               \
  DECLARE_MATMUL(level, matmul8_many)
#define DECLARE_ATTEND(level, name)                                                                                \
  extern void slm_##level##_##name(const float *, const void *, const void *, const int32_t *, const int32_t *,    \
                                   float *, int64_t, int64_t, int64_t, int64_t, float *);
#define DECLARE_MATMUL(level, name)                                                                                \
  extern void slm_##level##_##name(const uint8_t *, const uint16_t *, const void *, const float *, const void *,   \
                                   int64_t, int64_t, float *, int64_t, int64_t, int64_t, int64_t, int64_t);
#include "slm_levels.h"
#undef LEVEL

#define LEVEL(level, exact, positions, few, many, many_rows, one_rows)                                              \
  {#level, exact, positions, few, many, many_rows, one_rows, slm_##level##_normalized, slm_##level##_gated_silu,     \
   slm_##level##_gated_gelu, slm_##level##_copied, slm_##level##_append, slm_##level##_attend_few,                 \
   slm_##level##_attend_many,                                                                                      \
   slm_##level##_matmul4_one, slm_##level##_matmul4_many, slm_##level##_matmul8_one, slm_##level##_matmul8_many},
static const struct kernels all[] = {
#include "slm_levels.h"
};

const struct kernels *slm_kernels_at(size_t index) {
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    if (slm_cpu_has(all[i].name) && index-- == 0)
      return &all[i];
  }
  return NULL;
}

const char *slm_kernels(size_t index) {
  const struct kernels *found = slm_kernels_at(index);
  return found ? found->name : NULL;
}
