/* Decoding among a task's choices: which is likeliest, exactly, with few calls of the model.
 *
 * The choices' ids make a tree. Where paths part, the next token's distribution is restricted to the branches, and a
 * choice's probability is the product along its path; a stretch without branches costs nothing. So the probabilities of
 * all choices sum to one. A path's probability bounds those of all below it: the search ends when no path can beat the
 * best choice, and those that are left share less than UNEXPLORED. Paths that must be looked at anyhow, whatever is found
 * meanwhile, are looked at together. runners/choose.py is the same in Python, one path at a time. */
#ifndef SLM_SEARCH_H
#define SLM_SEARCH_H

#include "slm_text.h"
#include "table.h"

#define UNEXPLORED 1e-3

/* A node where paths part. */
struct branch {
  uint32_t parent;       /* NONE for the first */
  uint32_t begin, count; /* its ids after the parent's branch token inclusive, in `ids` */
  uint32_t first, below; /* its branches, in `twigs` */
};

/* A branch's token, its place among all such tokens, and what is behind it: a node or, from LEAF on, a choice. */
struct twig {
  uint32_t token, place, target;
};

enum { LEAF = 1u << 31 };
/* Ids from one place where paths part to the next, which are read at once; and of a whole path. */
enum { MOST_STEP = 128, MOST_PATH = 4096 };

/* text/choices.py writes it. */
struct choices {
  uint32_t count, nodes, twig_count, id_count, places, deepest;
  const struct branch *branches; /* [nodes], a parent before its children */
  const struct twig *twigs;
  const uint32_t *ids;
  const uint32_t *rows; /* [places]: the token of each place, in order */
  struct strings labels; /* [count] */
};

int slm_choices_open(struct bytes section, uint32_t vocabulary, struct choices *found);

/* A node that was not looked at yet, and minus the log-probability of its path. */
struct waiting {
  double cost;
  uint32_t node, unused;
};

struct search {
  const struct choices *choices;
  double *logprobs;        /* [choices]; NAN where none was found */
  struct waiting *waiting; /* [up to nodes], the likeliest first */
  uint32_t waiting_count;
  uint32_t wanted_count;   /* of `waiting`, from the first: they are looked at next */
};

size_t slm_search_bytes(const struct choices *choices);
/* In memory of so many bytes, aligned to 8. */
void slm_search_place(const struct choices *choices, void *memory, struct search *search);
/* From the beginning: node 0 is wanted. */
void slm_search_begin(struct search *search);
/* The logits of the branches of wanted node i, by place, are at logits + i * stride. Then others are wanted, up to
 * `most`, or none when the search is done. 0 where they are no numbers. */
int slm_search_give(struct search *search, const float *logits, size_t stride, uint32_t most);
/* Of a search that is done; without counts and times, and it never abstains. */
slm_decision slm_search_decision(const struct search *search);
/* What those choices share that were not come to. */
double slm_search_unexplored(const struct search *search);
/* The likeliest choice, of equal ones the first. */
uint32_t slm_search_best(const struct search *search);

#endif
