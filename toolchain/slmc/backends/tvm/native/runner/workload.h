/* A workload of slmc's runner contract, see slmc/runners/contract.py: its header, then its items one by one. */
#ifndef SLM_WORKLOAD_H
#define SLM_WORKLOAD_H

#include <stdio.h>

#include "buffer.h"
#include "slm.h"

enum mode { GENERATE, CHOOSE, SCORE };

/* Lists of ids, one after another. */
struct lists {
  struct buffer ids, ends; /* int32_t; size_t: how many ids there are up to a list's end */
};

struct workload {
  FILE *file;
  long number; /* of the line that was read last */
  long items;  /* where they begin */
  char *line;
  size_t size, capacity;
  struct buffer key, digest;
  int32_t end_id;
  struct buffer names;     /* of the sets of choices, each ended by a zero */
  struct lists *choices;   /* a set each */
  size_t sets;
};

struct item {
  enum mode mode;
  struct buffer id, names, texts; /* fields: each name and text with its size (size_t) before it */
  size_t fields;
  int has_fields;
  struct buffer input_ids, score_ids;
  size_t set;            /* of choices, for CHOOSE */
  int32_t max_tokens;    /* for GENERATE */
  int ignore_end;
  struct lists watch;    /* for SCORE: a list for each of score_ids, or none at all */
  int has_watch;
};

/* What is wrong is told in `error`. */
slm_status workload_open(const char *path, struct workload *workload, slm_error *error);
/* 1 where there is one more, 0 at the end; *status tells of a failure. The last one's memory is used again. */
int workload_next(struct workload *workload, struct item *item, slm_status *status, slm_error *error);

/* The next item is the first again. */
void workload_rewind(struct workload *workload);

static inline size_t ids_count(const struct buffer *ids) { return ids->size / sizeof(int32_t); }
static inline const int32_t *ids_of(const struct buffer *ids) { return (const int32_t *)(const void *)ids->bytes; }
static inline size_t lists_count(const struct lists *lists) { return lists->ends.size / sizeof(size_t); }
const int32_t *list_at(const struct lists *lists, size_t index, size_t *count);
/* The text of the field called `name`; NULL bytes where there is none. */
slm_text item_field(const struct item *item, slm_text name);

#endif
