#include "weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "sha256.h"

enum { VERSION = 1, ALIGNMENT = 64, NAME_SIZE = 48, MOST_LAYERS = 1024, MOST_TENSORS = 16384, MOST_ROPES = 8 };
enum { FLOAT32 = 0, INT4 = 1, INT8 = 2 };
/* No dimension is larger, so that no product of two of them and 8 leaves 64 bits. */
#define MOST_SIZE (1u << 24)

static const char MAGIC[8] = {'S', 'L', 'M', 'W', '\r', '\n', 0x1a, '\n'};

struct header {
  char magic[8];
  uint32_t version, tensors;
  uint64_t file_bytes;
  uint32_t layers, unused;
  uint8_t sha256[32];
  struct config config;
};

struct stored_layer {
  uint32_t rope, window;
};

struct tensor {
  char name[NAME_SIZE];
  uint32_t kind, rows, columns, unused;
  uint64_t offset, bytes;
};

_Static_assert(sizeof(struct header) == 128 && sizeof(struct tensor) == 80, "the file's layout");

int64_t slm_padded_rows(int64_t rows) { return (rows + 31) / 32 * 32; }

/* What is looked for in the table of tensors; the first failure stays. */
struct reader {
  const uint8_t *bytes;
  const struct tensor *tensors;
  uint32_t count, group;
  slm_error *error;
  slm_status status;
};

static slm_status broken(slm_error *error, const char *what) { return slm_fail(error, SLM_BAD_FILE, "%s", what); }

static const struct tensor *find(const struct reader *reader, const char *name) {
  for (uint32_t i = 0; i < reader->count; i++) {
    if (!strncmp(reader->tensors[i].name, name, NAME_SIZE))
      return &reader->tensors[i];
  }
  return NULL;
}

static void complain(struct reader *reader, const char *name, const char *what) {
  if (reader->status == SLM_OK)
    reader->status = slm_fail(reader->error, SLM_BAD_FILE, "tensor %s %s", name, what);
}

static const struct tensor *shaped(struct reader *reader, const char *name, int64_t rows, int64_t columns) {
  const struct tensor *tensor = find(reader, name);
  if (!tensor)
    complain(reader, name, "is missing");
  else if (tensor->rows != rows || tensor->columns != columns)
    complain(reader, name, "does not have the shape that the model's dimensions ask for");
  else
    return tensor;
  return NULL;
}

static const float *floats(struct reader *reader, const char *name, int64_t rows, int64_t columns) {
  const struct tensor *tensor = shaped(reader, name, rows, columns);
  if (!tensor)
    return NULL;
  if (tensor->kind == FLOAT32)
    return (const float *)(const void *)(reader->bytes + tensor->offset);
  complain(reader, name, "is not float32");
  return NULL;
}

static struct matrix matrix(struct reader *reader, const char *name, int64_t rows, int64_t columns) {
  const struct tensor *tensor = shaped(reader, name, slm_padded_rows(rows), columns);
  if (!tensor)
    return (struct matrix){0};
  if (tensor->kind == FLOAT32) {
    complain(reader, name, "is not quantized");
    return (struct matrix){0};
  }
  const int bits = tensor->kind == INT4 ? 4 : 8;
  const uint8_t *codes = reader->bytes + tensor->offset;
  const void *scales = codes + (uint64_t)tensor->rows * tensor->columns * (unsigned)bits / 8;
  return (struct matrix){codes, scales, tensor->rows, tensor->columns, bits};
}

/* What a tensor of this shape takes; 0 for a kind that there is not. */
static uint64_t size_of(const struct tensor *tensor, uint32_t group) {
  const uint64_t elements = (uint64_t)tensor->rows * tensor->columns;
  switch (tensor->kind) {
  case FLOAT32:
    return elements * 4;
  case INT4:
    return elements / 2 + elements / group * 2;
  case INT8:
    return elements + elements / group * 2;
  default:
    return 0;
  }
}

static int sound(const struct tensor *tensor, uint32_t group, uint64_t first, uint64_t size) {
  if (!memchr(tensor->name, 0, NAME_SIZE) || tensor->rows == 0 || tensor->columns == 0 || tensor->rows > MOST_SIZE ||
      tensor->columns > MOST_SIZE)
    return 0;
  if (tensor->kind != FLOAT32 && (tensor->columns % group || tensor->rows % 32))
    return 0;
  return tensor->bytes != 0 && tensor->bytes == size_of(tensor, group) && tensor->offset % ALIGNMENT == 0 &&
         tensor->offset >= first && tensor->offset <= size && tensor->bytes <= size - tensor->offset;
}

static int within(uint32_t value, uint32_t most, uint32_t multiple) {
  return value != 0 && value <= most && value % multiple == 0;
}

static int sensible(const struct config *c) {
  return within(c->vocab_size, MOST_SIZE, 1) && within(c->hidden_size, 1u << 17, 32) &&
         within(c->intermediate_size, 1u << 20, 32) && within(c->heads, 1024, 1) && within(c->kv_heads, c->heads, 1) &&
         c->heads % c->kv_heads == 0 && within(c->head_dim, 1024, 16) && (c->heads * c->head_dim) % 32 == 0 &&
         c->rotary_dim <= c->head_dim && c->rotary_dim % 2 == 0 && within(c->context, 1u << 22, 1) &&
         (c->group == 32 || c->group == 64 || c->group == 128) && c->gate <= GATE_GELU_TANH &&
         c->activations <= ACTIVATIONS_FLOAT32 && c->ropes <= MOST_ROPES && c->rms_eps >= 0 && c->rms_eps < 1;
}

static void read_layer(struct reader *reader, const struct config *c, unsigned index, struct layer *layer) {
  char name[NAME_SIZE];
  const int64_t hidden = c->hidden_size, queries = (int64_t)c->heads * c->head_dim;
  const int64_t qkv = queries + 2 * (int64_t)c->kv_heads * c->head_dim, inner = c->intermediate_size;
#define NAMED(part) (snprintf(name, sizeof name, "layers.%u." part, index), name)
#define OPTIONAL(part, columns) (find(reader, NAMED(part)) ? floats(reader, name, 1, columns) : NULL)
  layer->attention_norm = floats(reader, NAMED("attention_norm"), 1, hidden);
  layer->qkv = matrix(reader, NAMED("qkv"), qkv, hidden);
  layer->qkv_bias = OPTIONAL("qkv_bias", slm_padded_rows(qkv));
  layer->q_norm = OPTIONAL("q_norm", c->head_dim);
  layer->k_norm = OPTIONAL("k_norm", c->head_dim);
  layer->o = matrix(reader, NAMED("o"), hidden, queries);
  layer->attention_post_norm = OPTIONAL("attention_post_norm", hidden);
  layer->mlp_norm = floats(reader, NAMED("mlp_norm"), 1, hidden);
  layer->gate_up = matrix(reader, NAMED("gate_up"), 2 * inner, hidden);
  layer->down = matrix(reader, NAMED("down"), hidden, inner);
  layer->mlp_post_norm = OPTIONAL("mlp_post_norm", hidden);
#undef OPTIONAL
#undef NAMED
}

static void read_ropes(struct reader *reader, const struct config *c, struct rope *ropes) {
  char name[NAME_SIZE];
  for (unsigned i = 0; i < c->ropes; i++) {
    snprintf(name, sizeof name, "ropes.%u.cosines", i);
    ropes[i].cosines = floats(reader, name, c->context, c->rotary_dim / 2);
    snprintf(name, sizeof name, "ropes.%u.sines", i);
    ropes[i].sines = floats(reader, name, c->context, c->rotary_dim / 2);
  }
}

static slm_status read_tensors(struct reader *reader, const struct stored_layer *stored, struct weights *weights) {
  const struct config *c = &weights->config;
  weights->layers = calloc(weights->layer_count, sizeof *weights->layers);
  weights->ropes = calloc(MOST_ROPES, sizeof *weights->ropes);
  if (!weights->layers || !weights->ropes)
    return slm_fail(reader->error, SLM_NO_MEMORY, "no memory for %u layers", weights->layer_count);
  weights->embedding = matrix(reader, "embedding", c->vocab_size, c->hidden_size);
  weights->head = find(reader, "head") ? matrix(reader, "head", c->vocab_size, c->hidden_size) : weights->embedding;
  weights->norm = floats(reader, "norm", 1, c->hidden_size);
  read_ropes(reader, c, weights->ropes);
  for (uint32_t i = 0; i < weights->layer_count; i++) {
    weights->layers[i].rope = stored[i].rope;
    weights->layers[i].window = stored[i].window;
    if (stored[i].rope != NO_ROPE && stored[i].rope >= c->ropes)
      return slm_fail(reader->error, SLM_BAD_FILE, "layer %u names a rope table that is not there", i);
    read_layer(reader, c, i, &weights->layers[i]);
  }
  return reader->status;
}

static slm_status check_header(const struct header *header, size_t size, slm_error *error) {
  if (memcmp(header->magic, MAGIC, sizeof MAGIC))
    return broken(error, "not a weight file of slm");
  if (header->version != VERSION)
    return slm_fail(error, SLM_BAD_FILE, "a weight file of version %u; this library reads version %u", header->version,
                (unsigned)VERSION);
  if (header->file_bytes != size)
    return slm_fail(error, SLM_BAD_FILE, "the file has %llu bytes, its header says %llu: it was cut off or changed",
                (unsigned long long)size, (unsigned long long)header->file_bytes);
  if (!within(header->layers, MOST_LAYERS, 1) || !within(header->tensors, MOST_TENSORS, 1) ||
      !sensible(&header->config))
    return broken(error, "the header's dimensions make no model");
  return SLM_OK;
}

slm_status slm_weights_parse(const uint8_t *bytes, size_t size, int verify, struct weights *weights, slm_error *error) {
  *weights = (struct weights){.bytes = bytes, .size = size};
  const struct header *header = (const void *)bytes;
  if (size < sizeof *header)
    return broken(error, "the file is shorter than its header");
  slm_status status = check_header(header, size, error);
  if (status)
    return status;
  const uint64_t layers_end = sizeof *header + header->layers * sizeof(struct stored_layer);
  const uint64_t table = (layers_end + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  const uint64_t end = table + header->tensors * sizeof(struct tensor);
  if (end > size)
    return broken(error, "the table of tensors goes beyond the file");
  weights->config = header->config;
  weights->layer_count = header->layers;
  struct reader reader = {bytes, (const void *)(bytes + table), header->tensors, header->config.group, error, SLM_OK};
  for (uint32_t i = 0; i < reader.count; i++) {
    if (!sound(&reader.tensors[i], reader.group, end, size))
      return slm_fail(error, SLM_BAD_FILE, "entry %u of the table of tensors makes no tensor within the file", i);
  }
  if (verify) {
    uint8_t digest[32];
    slm_sha256(bytes + 64, size - 64, digest);
    if (memcmp(digest, header->sha256, sizeof digest))
      return broken(error, "the file is damaged: its bytes don't have the SHA-256 in its header");
  }
  status = read_tensors(&reader, (const void *)(bytes + sizeof *header), weights);
  if (status)
    slm_weights_free(weights);
  return status;
}

void slm_weights_free(struct weights *weights) {
  free(weights->layers);
  free(weights->ropes);
  weights->layers = NULL;
  weights->ropes = NULL;
}
