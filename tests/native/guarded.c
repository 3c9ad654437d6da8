/* Kernels are assembly, into which no sanitizer looks: here every array that they are given, of the weights and of
 * a session, lies alone between two pages that can't be touched, at their end or at their beginning.
 * `guarded FILE`. */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "session.h"

static int at_end;

static void *guarded(const void *bytes, size_t size) {
  const size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = (size + page - 1) / page * page;
  uint8_t *memory = mmap(NULL, pages + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(memory != MAP_FAILED && !mprotect(memory + page, pages, PROT_READ | PROT_WRITE));
  return memcpy(memory + page + (at_end ? pages - size : 0), bytes, size);
}

static void guard_floats(const float **tensor, size_t count) {
  if (*tensor)
    *tensor = guarded(*tensor, count * sizeof **tensor);
}

static void guard_matrix(struct matrix *matrix, size_t group) {
  const size_t codes = (size_t)(matrix->rows * matrix->columns);
  matrix->codes = guarded(matrix->codes, codes * (size_t)matrix->bits / 8);
  matrix->scales = guarded(matrix->scales, codes / group * sizeof *matrix->scales);
}

static void guard_weights(struct weights *weights) {
  const struct config *c = &weights->config;
  guard_matrix(&weights->embedding, c->group);
  guard_matrix(&weights->head, c->group);
  guard_floats(&weights->norm, c->hidden_size);
  for (uint32_t i = 0; i < c->ropes; i++) {
    guard_floats(&weights->ropes[i].cosines, (size_t)c->context * c->rotary_dim / 2);
    guard_floats(&weights->ropes[i].sines, (size_t)c->context * c->rotary_dim / 2);
  }
  for (uint32_t i = 0; i < weights->layer_count; i++) {
    struct layer *layer = &weights->layers[i];
    guard_floats(&layer->attention_norm, c->hidden_size);
    guard_floats(&layer->attention_post_norm, c->hidden_size);
    guard_floats(&layer->mlp_norm, c->hidden_size);
    guard_floats(&layer->mlp_post_norm, c->hidden_size);
    guard_floats(&layer->qkv_bias, (size_t)layer->qkv.rows);
    guard_floats(&layer->q_norm, c->head_dim);
    guard_floats(&layer->k_norm, c->head_dim);
    guard_matrix(&layer->qkv, c->group);
    guard_matrix(&layer->o, c->group);
    guard_matrix(&layer->gate_up, c->group);
    guard_matrix(&layer->down, c->group);
  }
}

/* In the order in which they lie in the session's memory, so that each ends where the next begins. */
static void guard_session(slm_session *s) {
#define GUARD(array, next) s->array = guarded(s->array, (size_t)((uint8_t *)(next) - (uint8_t *)s->array))
  GUARD(x, s->branch);
  GUARD(branch, s->qkv);
  GUARD(qkv, s->attended);
  GUARD(attended, s->gate_up);
  GUARD(gate_up, s->held.values);
  GUARD(held.values, s->held.scales);
  GUARD(held.scales, s->held.offsets);
  GUARD(held.offsets, s->logits);
  GUARD(logits, s->kept_logits);
  GUARD(kept_logits, s->per_thread);
  GUARD(per_thread, s->keys);
  GUARD(keys, s->values);
  GUARD(values, s->memory + s->stats.memory_bytes);
}

/* Reads to the end of the context, at once and token by token; the logits of both. */
static void read_all(const slm_model *model, int32_t context, int guard, float *logits) {
  const size_t vocab = model->weights.config.vocab_size, size = vocab * sizeof *logits;
  const slm_session_options options = {context, 1};
  int32_t ids[MOST_IDS];
  slm_session *session;
  CHECK(slm_session_new(model, &options, &session, NULL) == SLM_OK);
  if (guard)
    guard_session(session);
  CHECK(slm_prefill(session, some_ids((int32_t)vocab, ids), (size_t)context) == SLM_OK);
  memcpy(logits, slm_logits(session), size);
  CHECK(slm_rewind(session, 0) == SLM_OK);
  for (int32_t i = 0; i < context; i++)
    CHECK(slm_decode(session, ids[i]) == SLM_OK);
  memcpy(logits + vocab, slm_logits(session), size);
  slm_session_free(session);
}

static void check(const char *path, const char *kernels) {
  static const int32_t contexts[] = {1, 5, 13, 130, MOST_IDS};
  const slm_open_options options = {0, kernels};
  slm_model *plain, *model;
  CHECK(slm_open(path, &options, &plain, NULL) == SLM_OK && slm_open(path, &options, &model, NULL) == SLM_OK);
  guard_weights(&model->weights);
  float wanted[2 * 256], found[2 * 256];
  CHECK(model->weights.config.vocab_size <= 256);
  for (size_t i = 0; i < sizeof contexts / sizeof *contexts; i++) {
    read_all(plain, contexts[i], 0, wanted);
    read_all(model, contexts[i], 1, found);
    CHECK(!memcmp(found, wanted, 2 * model->weights.config.vocab_size * sizeof *found));
  }
  slm_close(plain);
  slm_close(model);
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  for (at_end = 0; at_end < 2; at_end++) {
    for (size_t i = 0; slm_kernels(i); i++)
      check(argv[1], slm_kernels(i));
  }
  return 0;
}
