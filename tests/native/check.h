/* What the drivers share: a condition that must hold, in optimized builds too, and tokens to read. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>

#include "slm.h"

#define CHECK(condition)                                                  \
  do {                                                                    \
    if (!(condition)) {                                                   \
      fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
      abort();                                                            \
    }                                                                     \
  } while (0)

enum { MOST_IDS = 200 };

/* Ids of a vocabulary, its last, which may give no numbers, left out. */
static inline const int32_t *some_ids(int32_t vocab_size, int32_t ids[MOST_IDS]) {
  for (int32_t i = 0; i < MOST_IDS; i++)
    ids[i] = (i * 7 + 3) % (vocab_size - 1);
  return ids;
}

#endif
