/* What a test asks of grammar.c and sampling.c, through ctypes. */
#include "sampling.h"
#include "task.h"

const struct tokenizer *test_tokenizer(const slm_task *task) { return &task->tokenizer; }

const struct grammar *test_grammar(const slm_task *task) { return &task->grammar; }

/* A grammar in bytes of its own; NULL where they are damaged. One at a time. */
const struct grammar *test_open(const uint8_t *data, size_t size, const struct tokenizer *tokenizer) {
  static struct grammar grammar;
  return slm_grammar_open((struct bytes){data, size}, tokenizer, &grammar) ? &grammar : NULL;
}

int test_accepts(const struct grammar *grammar, uint32_t state) { return grammar_accepts(grammar, state); }

uint32_t test_states(const struct grammar *grammar) { return grammar->states; }

/* Draw so many times of the same logits. */
void test_sample(const float *logits, size_t count, double temperature, size_t top_k, double top_p, uint64_t seed,
                 int32_t *drawn, size_t draws) {
  const struct sampling sampling = {temperature, top_p, top_k};
  struct candidate *candidates = malloc(count * sizeof *candidates);
  for (size_t i = 0; i < draws && candidates; i++) {
    for (size_t id = 0; id < count; id++)
      candidates[id] = (struct candidate){logits[id], (int32_t)id};
    drawn[i] = slm_sample(&sampling, &seed, candidates, count);
  }
  free(candidates);
}
