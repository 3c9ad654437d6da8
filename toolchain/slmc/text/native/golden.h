/* Golden items: prompts with the ids and the answer that they had where the task was built.
 *
 *     uint32 items, fields, ids; for each item: uint32 where its ids begin, how many, label or NONE; float32 probability;
 *     then the ids; then strings: [items, fields], and [items] names */
#ifndef SLM_GOLDEN_H
#define SLM_GOLDEN_H

#include "prompt.h"

struct golden_item {
  uint32_t begin, count, label;
  float probability;
};

struct golden {
  uint32_t count, fields;
  const struct golden_item *items;
  const int32_t *ids;
  struct strings strings;
};

int slm_golden_open(struct bytes section, uint32_t fields, struct golden *found);
/* An item's fields, and its name. */
void slm_golden_fields(const struct golden *golden, uint32_t item, slm_text *fields);
slm_text slm_golden_name(const struct golden *golden, uint32_t item);
/* Whether ids are an item's; else `check` tells. */
int slm_golden_same_ids(const struct golden *golden, uint32_t item, const int32_t *ids, size_t count, slm_check *check);

#endif
