#include "prefix.h"

#include <string.h>
#include <sys/mman.h>

#include "file.h"
#include "sha256.h"

enum { VERSION = 1, ALIGNMENT = 16 };

static const char MAGIC[8] = {'S', 'L', 'M', 'P', '\r', '\n', 0x1a, '\n'};

struct header {
  char magic[8];
  uint32_t version, number_bytes;
  uint64_t file_bytes, code;
  uint32_t tokens, layers, heads, elements;
  uint8_t weights[32], sha256[32];
};

_Static_assert(sizeof(struct header) == 112, "the file's layout");

static size_t numbers_begin(size_t count) {
  return (sizeof(struct header) + 4 * count + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static struct header header_of(const slm_session *session, size_t count) {
  const struct weights *weights = &session->model->weights;
  struct header header = {.version = VERSION,
                          .number_bytes = session->model->kernels->exact ? 4 : 2,
                          .file_bytes = slm_prefix_size(session, count),
                          .code = SLM_CODE,
                          .tokens = (uint32_t)count,
                          .layers = weights->layer_count,
                          .heads = weights->config.kv_heads,
                          .elements = weights->config.head_dim};
  memcpy(header.magic, MAGIC, sizeof MAGIC);
  memcpy(header.weights, weights->bytes + 32, sizeof header.weights);
  return header;
}

size_t slm_prefix_size(const slm_session *session, size_t count) {
  const struct weights *weights = &session->model->weights;
  const size_t row = 2 * (size_t)weights->config.head_dim * (session->model->kernels->exact ? 4 : 2);
  return numbers_begin(count) + weights->layer_count * weights->config.kv_heads * count * row;
}

/* ---- Between the file's rows and the caches, which attention.py lays out -------------------------------------- */

struct walk {
  const slm_session *session;
  int64_t bytes; /* of a number */
  uint8_t *keys, *values; /* of a head */
};

static uint8_t *key_at(const struct walk *w, int64_t position, int64_t element) {
  const int64_t side = w->session->model->kernels->positions, dim = w->session->model->weights.config.head_dim;
  return w->keys + ((position / side * dim + element) * side + position % side) * w->bytes;
}

/* One row: to the cache, or from it. */
static void move_row(const struct walk *w, int64_t position, uint8_t *row, int to_cache) {
  const int64_t dim = w->session->model->weights.config.head_dim;
  for (int64_t i = 0; i < dim; i++) {
    uint8_t *key = key_at(w, position, i), *stored = row + i * w->bytes;
    memcpy(to_cache ? key : stored, to_cache ? stored : key, (size_t)w->bytes);
  }
  uint8_t *value = w->values + position * dim * w->bytes, *stored = row + dim * w->bytes;
  memcpy(to_cache ? value : stored, to_cache ? stored : value, (size_t)(dim * w->bytes));
}

static void move_all(const slm_session *session, uint8_t *rows, size_t count, int to_cache) {
  const struct weights *weights = &session->model->weights;
  const int64_t heads = (int64_t)weights->layer_count * weights->config.kv_heads, dim = weights->config.head_dim;
  const int64_t bytes = session->model->kernels->exact ? 4 : 2, head = session->padded_context * dim * bytes;
  for (int64_t i = 0; i < heads; i++) {
    const struct walk walk = {session, bytes, session->keys + i * head, session->values + i * head};
    for (size_t position = 0; position < count; position++, rows += 2 * dim * bytes)
      move_row(&walk, (int64_t)position, rows, to_cache);
  }
}

/* ---- The file ------------------------------------------------------------------------------------------------- */

void slm_prefix_write(const slm_session *session, const int32_t *ids, size_t count, uint8_t *bytes) {
  struct header header = header_of(session, count);
  memset(bytes, 0, numbers_begin(count));
  memcpy(bytes + sizeof header, ids, 4 * count);
  move_all(session, bytes + numbers_begin(count), count, 0);
  slm_sha256(bytes + sizeof header, (size_t)header.file_bytes - sizeof header, header.sha256);
  memcpy(bytes, &header, sizeof header);
}

static slm_status check(const slm_session *session, const uint8_t *bytes, size_t size, const int32_t *ids, size_t count,
                        slm_error *error) {
  const struct header wanted = header_of(session, count);
  struct header found;
  uint8_t digest[32];
  if (size < sizeof found || memcmp(bytes, MAGIC, sizeof MAGIC))
    return slm_fail(error, SLM_BAD_FILE, "not a prompt's beginning");
  memcpy(&found, bytes, sizeof found);
  if (found.version != VERSION || found.code != wanted.code || found.number_bytes != wanted.number_bytes)
    return slm_fail(error, SLM_BAD_FILE, "a prompt's beginning by another version of the library, or other kernels");
  if (memcmp(found.weights, wanted.weights, sizeof found.weights))
    return slm_fail(error, SLM_BAD_FILE, "a prompt's beginning by another model");
  if (found.tokens != count || found.layers != wanted.layers || found.heads != wanted.heads ||
      found.elements != wanted.elements || size != wanted.file_bytes || memcmp(bytes + sizeof found, ids, 4 * count))
    return slm_fail(error, SLM_BAD_FILE, "the beginning of another prompt");
  slm_sha256(bytes + sizeof found, size - sizeof found, digest);
  return memcmp(digest, found.sha256, sizeof digest)
             ? slm_fail(error, SLM_BAD_FILE, "a prompt's beginning with other bytes than its digest")
             : SLM_OK;
}

slm_status slm_prefix_read(slm_session *session, const char *path, const int32_t *ids, size_t count, slm_error *error) {
  const uint8_t *bytes;
  size_t size;
  slm_status status = slm_map_file(path, &bytes, &size, error);
  if (status)
    return status;
  status = count <= (size_t)session->context ? check(session, bytes, size, ids, count, error)
                                             : slm_fail(error, SLM_CONTEXT_FULL, "the prompt's beginning is longer "
                                                                                 "than the context");
  if (!status) {
    move_all(session, (uint8_t *)(uintptr_t)bytes + numbers_begin(count), count, 1);
    session->position = (int64_t)count;
  }
  munmap((void *)(uintptr_t)bytes, size);
  return status;
}
