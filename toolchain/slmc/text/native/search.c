#include "search.h"

#include <math.h>
#include <stdlib.h>

enum { NUMBERS = 6 };

/* ---- The section ---------------------------------------------------------------------------------------------- */

/* Every path ends within the deepest, which memory and context are counted by. */
static int is_shallow(const struct choices *c) {
  if (c->deepest > MOST_PATH || c->branches[0].count > c->deepest)
    return 0;
  for (uint32_t i = 0; i < c->nodes; i++) {
    uint64_t length = 0;
    for (uint32_t at = i; at != NONE && length <= c->deepest; at = c->branches[at].parent)
      length += c->branches[at].count;
    if (length > c->deepest)
      return 0;
  }
  return 1;
}

/* Nodes are numbered as their parents' twigs name them, so that each is named once; twigs lie in the nodes' order. */
static int is_tree(const struct choices *c) {
  uint32_t twigs = 0, named = 1;
  for (uint32_t i = 0; i < c->nodes; i++) {
    const struct branch *b = &c->branches[i];
    if (b->begin > c->id_count || b->count > c->id_count - b->begin || (i && (!b->count || b->count > MOST_STEP)) || b->first != twigs ||
        !b->below || b->below > c->twig_count - twigs || i >= named || (!i && b->parent != NONE))
      return 0;
    for (; twigs < b->first + b->below; twigs++) {
      const uint32_t target = c->twigs[twigs].target;
      if (target < LEAF && (target != named++ || target >= c->nodes || c->branches[target].parent != i))
        return 0;
    }
  }
  return twigs == c->twig_count && named == c->nodes;
}

int slm_choices_open(struct bytes section, uint32_t vocabulary, struct choices *c) {
  const uint32_t *numbers = (const uint32_t *)(const void *)section.data;
  if (section.size < 4 * NUMBERS)
    return 0;
  c->count = numbers[0];
  c->nodes = numbers[1];
  c->twig_count = numbers[2];
  c->id_count = numbers[3];
  c->places = numbers[4];
  c->deepest = numbers[5];
  const uint64_t words = NUMBERS + (uint64_t)c->nodes * 5 + (uint64_t)c->twig_count * 3 + c->id_count + c->places;
  if (!c->count || c->count >= LEAF || !c->nodes || section.size / 4 < words)
    return 0;
  c->branches = (const struct branch *)(const void *)(numbers + NUMBERS);
  c->twigs = (const struct twig *)(const void *)(c->branches + c->nodes);
  c->ids = (const uint32_t *)(const void *)(c->twigs + c->twig_count);
  c->rows = c->ids + c->id_count;
  for (uint32_t i = 0; i < c->twig_count; i++) {
    const struct twig *twig = &c->twigs[i];
    if (twig->token >= vocabulary || twig->place >= c->places ||
        (twig->target >= LEAF && twig->target - LEAF >= c->count))
      return 0;
  }
  for (uint32_t i = 0; i < c->id_count + c->places; i++) {
    if (c->ids[i] >= vocabulary)
      return 0;
  }
  const struct bytes left = {section.data + 4 * words, section.size - 4 * (size_t)words};
  return is_tree(c) && is_shallow(c) && slm_strings_open(left, &c->labels) && c->labels.count == c->count;
}

/* ---- The search ----------------------------------------------------------------------------------------------- */

size_t slm_search_bytes(const struct choices *choices) {
  return choices->count * sizeof(double) + choices->nodes * sizeof(struct waiting);
}

void slm_search_place(const struct choices *choices, void *memory, struct search *search) {
  search->choices = choices;
  search->logprobs = memory;
  search->waiting = (struct waiting *)(void *)(search->logprobs + choices->count);
}

void slm_search_begin(struct search *search) {
  for (uint32_t i = 0; i < search->choices->count; i++)
    search->logprobs[i] = NAN;
  search->waiting[0] = (struct waiting){0};
  search->waiting_count = search->wanted_count = 1;
}

double slm_search_unexplored(const struct search *search) {
  double sum = 0;
  for (uint32_t i = 0; i < search->waiting_count; i++)
    sum += exp(-search->waiting[i].cost);
  return sum < 1 ? sum : 1;
}

uint32_t slm_search_best(const struct search *search) {
  uint32_t best = 0;
  for (uint32_t i = 1; i < search->choices->count; i++) {
    if (!isnan(search->logprobs[i]) && !(search->logprobs[i] <= search->logprobs[best]))
      best = i;
  }
  return best;
}

/* What is behind a node's branches, by the log-softmax over them. */
static int expand(struct search *search, struct waiting at, const float *logits) {
  const struct choices *c = search->choices;
  const struct branch *branch = &c->branches[at.node];
  const struct twig *twigs = c->twigs + branch->first;
  double top = -INFINITY, sum = 0;
  for (uint32_t i = 0; i < branch->below; i++) {
    const float logit = logits[twigs[i].place];
    if (!isfinite(logit))
      return 0;
    top = logit > top ? logit : top;
  }
  for (uint32_t i = 0; i < branch->below; i++)
    sum += exp(logits[twigs[i].place] - top);
  for (uint32_t i = 0; i < branch->below; i++) {
    const double total = logits[twigs[i].place] - top - log(sum) - at.cost;
    if (twigs[i].target >= LEAF)
      search->logprobs[twigs[i].target - LEAF] = total;
    else
      search->waiting[search->waiting_count++] = (struct waiting){-total, twigs[i].target, 0};
  }
  return 1;
}

static int by_cost(const void *left, const void *right) {
  const struct waiting *a = left, *b = right;
  return a->cost != b->cost ? (a->cost > b->cost) - (a->cost < b->cost) : (a->node > b->node) - (a->node < b->node);
}

/* As few of those that wait as leave the others less than UNEXPLORED; and the first if the best may be behind it. */
static uint32_t needed(const struct search *search, uint32_t most) {
  uint32_t count = search->waiting_count;
  double left = 0;
  while (count && left + exp(-search->waiting[count - 1].cost) < UNEXPLORED)
    left += exp(-search->waiting[--count].cost);
  if (!count && search->waiting_count && !(search->logprobs[slm_search_best(search)] >= -search->waiting[0].cost))
    count = 1;
  return count < most ? count : most;
}

int slm_search_give(struct search *search, const float *logits, size_t stride, uint32_t most) {
  const uint32_t given = search->wanted_count;
  for (uint32_t i = 0; i < given; i++) {
    if (!expand(search, search->waiting[i], logits + i * stride))
      return 0;
  }
  search->waiting_count -= given;
  memmove(search->waiting, search->waiting + given, search->waiting_count * sizeof *search->waiting);
  qsort(search->waiting, search->waiting_count, sizeof *search->waiting, by_cost);
  search->wanted_count = needed(search, most);
  return 1;
}

slm_decision slm_search_decision(const struct search *search) {
  const uint32_t best = slm_search_best(search);
  return (slm_decision){.choice = (int32_t)best,
                        .probability = (float)exp(search->logprobs[best]),
                        .unexplored = (float)slm_search_unexplored(search)};
}
