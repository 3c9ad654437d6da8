/* The decoder: from tokens to logits. */
#include <math.h>
#include <string.h>

#include "session.h"

/* Tasks for the pool: about this many for each thread, so that a slow one does fewer. */
enum { SHARES = 8 };

static int64_t step_of(const slm_session *session, int64_t rounds) {
  const int64_t step = rounds / (session->threads * SHARES);
  return step > 0 ? step : 1;
}

static void run(slm_session *session, pool_work work, void *task, int64_t rounds) {
  slm_pool_run(session->pool, work, task, rounds, step_of(session, rounds));
}

/* ---- Embedding ------------------------------------------------------------------------------------------------ */

static float widened(uint16_t bfloat16) {
  const uint32_t bits = (uint32_t)bfloat16 << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* Row `id` of a packed matrix, see layout.py, times `factor`. */
static void unpack_row(const struct matrix *matrix, uint32_t group, int32_t id, float factor, float *out) {
  const int64_t depth = matrix->columns / BLOCK, block_row = id / LANES, channel = id % LANES;
  const int64_t groups = matrix->columns / group, blocks = group / BLOCK;
  for (int64_t block = 0; block < depth; block++) {
    const uint8_t *codes = matrix->codes + (block_row * depth + block) * 32 * matrix->bits;
    const float scale = widened(matrix->scales[(block_row * groups + block / blocks) * LANES + channel]) * factor;
    for (int k = 0; k < BLOCK; k++) {
      const int column = matrix->bits == 4 ? k % 16 : k;
      const uint8_t byte = codes[column / 4 * 32 + channel * 4 + column % 4];
      const int code = matrix->bits == 8 ? byte - 128 : (k < 16 ? byte & 15 : byte >> 4) - 8;
      out[block * BLOCK + k] = (float)code * scale;
    }
  }
}

/* ---- Matrix products ------------------------------------------------------------------------------------------ */

struct product {
  const slm_session *session;
  const struct matrix *matrix;
  float *result;
  int64_t stride, add, count;
};

static void multiply(void *context, int64_t first, int64_t last, int worker) {
  (void)worker;
  const struct product *p = context;
  const struct kernels *k = p->session->model->kernels;
  const struct rows *held = &p->session->held;
  const int64_t shift = p->session->model->weights.config.group / 64; /* 32, 64, 128 to 0, 1, 2 */
  MATMUL(kernel) = p->matrix->bits == 4 ? (p->count == 1 ? k->matmul4_one : k->matmul4_many)
                                        : (p->count == 1 ? k->matmul8_one : k->matmul8_many);
  kernel(p->matrix->codes, p->matrix->scales, held->values, held->scales, held->offsets, p->matrix->columns / BLOCK,
         shift, p->result, p->stride, p->add, p->count, first, last);
}

/* result (+)= what is held · the matrix'. Rows of `result` are as long as the matrix has rows. */
static void product(slm_session *session, const struct matrix *matrix, float *result, int add, int64_t count) {
  const struct kernels *k = session->model->kernels;
  struct product task = {session, matrix, result, matrix->rows, add, count};
  run(session, multiply, &task, matrix->rows / (count == 1 ? k->one_rows : k->many_rows));
}

/* ---- Activations ---------------------------------------------------------------------------------------------- */

struct activations {
  slm_session *session;
  const float *x, *weights; /* weights of a norm */
  int64_t columns;
};

static void normalize(void *context, int64_t first, int64_t last, int worker) {
  (void)worker;
  const struct activations *a = context;
  const slm_model *model = a->session->model;
  const struct rows *held = &a->session->held;
  model->kernels->normalized(a->x, a->weights, held->values, held->scales, held->offsets, a->columns / BLOCK,
                             model->weights.config.rms_eps, first, last);
}

static void gate(void *context, int64_t first, int64_t last, int worker) {
  (void)worker;
  const struct activations *a = context;
  const slm_model *model = a->session->model;
  const struct rows *held = &a->session->held;
  (model->weights.config.gate == GATE_SILU ? model->kernels->gated_silu : model->kernels->gated_gelu)(
      a->x, 2 * a->columns, held->values, held->scales, held->offsets, a->columns / BLOCK, first, last);
}

static void copy(void *context, int64_t first, int64_t last, int worker) {
  (void)worker;
  const struct activations *a = context;
  const struct rows *held = &a->session->held;
  a->session->model->kernels->copied(a->x, held->values, held->scales, held->offsets, a->columns / BLOCK, first, last);
}

static void hold(slm_session *session, pool_work work, const float *x, const float *weights, int64_t columns,
                 int64_t count) {
  struct activations task = {session, x, weights, columns};
  run(session, work, &task, count);
}

static float rms_factor(const float *x, int64_t count, float epsilon) {
  float sum = 0;
  for (int64_t i = 0; i < count; i++)
    sum += x[i] * x[i];
  return 1 / sqrtf(sum / (float)count + epsilon);
}

/* x += RMSNorm(branch) * weights. */
static void add_normalized(slm_session *session, const float *weights, int64_t count) {
  const struct config *c = &session->model->weights.config;
  for (int64_t row = 0; row < count; row++) {
    const float *branch = session->branch + row * c->hidden_size;
    float *x = session->x + row * c->hidden_size;
    const float factor = rms_factor(branch, c->hidden_size, c->rms_eps);
    for (uint32_t i = 0; i < c->hidden_size; i++)
      x[i] += branch[i] * factor * weights[i];
  }
}

/* x += what is held · the matrix', normalized before where the layer says so. */
static void add_branch(slm_session *session, const struct matrix *matrix, const float *post_norm, int64_t count) {
  if (!post_norm) {
    product(session, matrix, session->x, 1, count);
    return;
  }
  product(session, matrix, session->branch, 0, count);
  add_normalized(session, post_norm, count);
}

/* ---- Attention ------------------------------------------------------------------------------------------------ */

struct attention {
  slm_session *session;
  const struct layer *layer;
  int64_t layer_index, count;
  struct branches *branches; /* NULL where tokens follow each other */
  int64_t first;             /* of the branches' tokens */
  const int64_t *wanted;     /* [wanted_count]: rows that are asked for logits, ascending */
  int64_t wanted_count;
};

static void *head_cache(const slm_session *session, uint8_t *cache, int64_t layer, int64_t head) {
  const struct config *c = &session->model->weights.config;
  const int64_t size = session->model->kernels->exact ? 4 : 2;
  return cache + (layer * c->kv_heads + head) * session->padded_context * c->head_dim * size;
}

/* A query or key in place: normed where there is a norm, its first elements turned by its position, times `scale`. */
static void rotate(const slm_session *session, const struct layer *layer, float *head, const float *norm,
                   int64_t position, float scale) {
  const struct config *c = &session->model->weights.config;
  const float factor = norm ? rms_factor(head, c->head_dim, c->rms_eps) : 1;
  for (uint32_t i = 0; i < c->head_dim; i++)
    head[i] *= norm ? factor * norm[i] * scale : scale;
  if (layer->rope == NO_ROPE)
    return;
  const struct rope *rope = &session->model->weights.ropes[layer->rope];
  const int64_t half = c->rotary_dim / 2;
  const float *cosines = rope->cosines + position * half, *sines = rope->sines + position * half;
  for (int64_t i = 0; i < half; i++) {
    const float left = head[i], right = head[i + half];
    head[i] = left * cosines[i] - right * sines[i];
    head[i + half] = right * cosines[i] + left * sines[i];
  }
}

/* How many tokens come before one of a branch, after the session's last. */
static int64_t depth_of(const struct branches *branches, int64_t token) {
  int64_t depth = 0;
  for (int32_t parent = branches->parents[token]; parent >= 0; parent = branches->parents[parent])
    depth++;
  return depth;
}

/* Where a branch's token keeps the keys of a layer; its values follow. */
static float *branch_keys(const struct attention *a, int64_t token) {
  const struct config *c = &a->session->model->weights.config;
  const int64_t size = (int64_t)c->kv_heads * c->head_dim;
  return a->branches->keys_values + (a->layer_index * a->branches->most + token) * 2 * size;
}

static void append(const struct attention *a, int64_t head, const float *key, const float *value, int64_t position) {
  slm_session *session = a->session;
  session->model->kernels->append(key, value, head_cache(session, session->keys, a->layer_index, head),
                                  head_cache(session, session->values, a->layer_index, head),
                                  session->model->weights.config.head_dim, position);
}

/* Rows of queries and keys, in place, and the keys and values into the cache, or to the branches' own. */
static void place(void *context, int64_t first, int64_t last, int worker) {
  (void)worker;
  const struct attention *a = context;
  slm_session *session = a->session;
  const struct config *c = &session->model->weights.config;
  for (int64_t row = first; row < last; row++) {
    float *queries = session->qkv + row * a->layer->qkv.rows, *keys = queries + c->heads * c->head_dim;
    float *values = keys + c->kv_heads * c->head_dim;
    const int64_t position = session->position + (a->branches ? depth_of(a->branches, a->first + row) : row);
    for (uint32_t head = 0; head < c->heads; head++)
      rotate(session, a->layer, queries + head * c->head_dim, a->layer->q_norm, position, c->attention_scale);
    for (uint32_t head = 0; head < c->kv_heads; head++) {
      rotate(session, a->layer, keys + head * c->head_dim, a->layer->k_norm, position, 1);
      if (!a->branches)
        append(a, head, keys + head * c->head_dim, values + head * c->head_dim, position);
    }
    if (a->branches) /* values lie behind keys here as there */
      memcpy(branch_keys(a, a->first + row), keys, 2 * sizeof *keys * c->kv_heads * c->head_dim);
  }
}

/* Where a worker's queries, results and scores lie. */
struct tile {
  float *queries, *results, *scores;
  int32_t begins[MOST_QUERIES], ends[MOST_QUERIES];
  int64_t start, stop;
};

static struct tile tile_of(const slm_session *session, int worker) {
  float *queries = session->per_thread + worker * session->per_thread_floats;
  const int64_t dim = session->model->weights.config.head_dim;
  return (struct tile){.queries = queries,
                       .results = queries + MOST_QUERIES * dim,
                       .scores = queries + 2 * MOST_QUERIES * dim,
                       .start = session->padded_context};
}

/* Query `query` of row `row`, which sees the positions before `end`, becomes query i of the tile. */
static void add_query(const struct attention *a, struct tile *tile, int64_t i, int64_t row, int64_t query, int64_t end) {
  const int64_t dim = a->session->model->weights.config.head_dim, window = a->layer->window;
  memcpy(tile->queries + i * dim, a->session->qkv + row * a->layer->qkv.rows + query * dim,
         (size_t)dim * sizeof *tile->queries);
  tile->ends[i] = (int32_t)end;
  tile->begins[i] = (int32_t)(window && end > window ? end - window : 0);
  tile->start = tile->begins[i] < tile->start ? tile->begins[i] : tile->start;
  tile->stop = end > tile->stop ? end : tile->stop;
}

static void attend_tile(const struct attention *a, struct tile *tile, int64_t head, int64_t used) {
  slm_session *session = a->session;
  const struct kernels *k = session->model->kernels;
  (used <= k->few_queries ? k->attend_few : k->attend_many)(
      tile->queries, head_cache(session, session->keys, a->layer_index, head),
      head_cache(session, session->values, a->layer_index, head), tile->begins, tile->ends, tile->scores,
      session->padded_context, session->model->weights.config.head_dim, tile->start / k->positions * k->positions,
      tile->stop, tile->results);
}

static void take_result(const struct attention *a, const struct tile *tile, int64_t i, int64_t row, int64_t query) {
  const struct config *c = &a->session->model->weights.config;
  memcpy(a->session->attended + (row * c->heads + query) * c->head_dim, tile->results + i * c->head_dim,
         c->head_dim * sizeof *tile->results);
}

/* Up to `many_queries` of those that share a head of keys, row by row. */
static void attend_rows(const struct attention *a, int64_t head, int64_t number, int worker) {
  const struct config *c = &a->session->model->weights.config;
  const int64_t shared = c->heads / c->kv_heads, queries = a->session->model->kernels->many_queries;
  const int64_t base = number * queries, left = a->count * shared - base, used = left < queries ? left : queries;
  struct tile tile = tile_of(a->session, worker);
  for (int64_t i = 0; i < used; i++) {
    const int64_t row = (base + i) / shared;
    add_query(a, &tile, i, row, head * shared + (base + i) % shared, a->session->position + row + 1);
  }
  attend_tile(a, &tile, head, used);
  for (int64_t i = 0; i < used; i++)
    take_result(a, &tile, i, (base + i) / shared, head * shared + (base + i) % shared);
}

/* A branch's token with those before it, in the cache after what was read: other branches put theirs there next. */
static int64_t place_branch(const struct attention *a, int64_t head, int64_t token) {
  const struct config *c = &a->session->model->weights.config;
  const int64_t size = (int64_t)c->kv_heads * c->head_dim, depth = depth_of(a->branches, token);
  int64_t position = a->session->position + depth;
  for (int64_t at = token; at >= 0; at = a->branches->parents[at]) {
    const float *keys = branch_keys(a, at) + head * c->head_dim;
    append(a, head, keys, keys + size, position--);
  }
  return a->session->position + depth + 1;
}

static void attend_branches(void *context, int64_t first, int64_t last, int worker) {
  const struct attention *a = context;
  const struct config *c = &a->session->model->weights.config;
  const int64_t shared = c->heads / c->kv_heads, most = a->session->model->kernels->many_queries;
  for (int64_t head = first; head < last; head++) {
    for (int64_t row = 0; row < a->count; row++) {
      const int64_t end = place_branch(a, head, a->first + row);
      for (int64_t done = 0, used; done < shared; done += used) {
        struct tile tile = tile_of(a->session, worker);
        used = shared - done < most ? shared - done : most;
        for (int64_t i = 0; i < used; i++)
          add_query(a, &tile, i, row, head * shared + done + i, end);
        attend_tile(a, &tile, head, used);
        for (int64_t i = 0; i < used; i++)
          take_result(a, &tile, i, row, head * shared + done + i);
      }
    }
  }
}

static int64_t tiles_of(const struct attention *a) {
  const struct config *c = &a->session->model->weights.config;
  const int64_t queries = a->session->model->kernels->many_queries;
  return (a->count * (c->heads / c->kv_heads) + queries - 1) / queries;
}

static void attend(void *context, int64_t first, int64_t last, int worker) {
  const struct attention *a = context;
  const int64_t tiles = tiles_of(a);
  for (int64_t i = first; i < last; i++)
    attend_rows(a, i / tiles, i % tiles, worker);
}

/* ---- Layers --------------------------------------------------------------------------------------------------- */

/* After the last layer's attention only the rows that are asked for logits go on. */
static void keep_wanted(struct attention *a) {
  const struct config *c = &a->session->model->weights.config;
  const size_t hidden = c->hidden_size, queries = (size_t)c->heads * c->head_dim;
  for (int64_t i = 0; i < a->wanted_count; i++) {
    const size_t from = (size_t)a->wanted[i], to = (size_t)i;
    if (from == to)
      continue;
    memcpy(a->session->x + to * hidden, a->session->x + from * hidden, hidden * sizeof *a->session->x);
    memcpy(a->session->attended + to * queries, a->session->attended + from * queries,
           queries * sizeof *a->session->attended);
  }
  a->count = a->wanted_count;
}

static void run_layer(struct attention *a) {
  slm_session *session = a->session;
  const struct config *c = &session->model->weights.config;
  const struct layer *layer = a->layer = &session->model->weights.layers[a->layer_index];
  const int64_t hidden = c->hidden_size, queries = (int64_t)c->heads * c->head_dim;
  int64_t count = a->count;

  hold(session, normalize, session->x, layer->attention_norm, hidden, count);
  for (int64_t row = 0; layer->qkv_bias && row < count; row++)
    memcpy(session->qkv + row * layer->qkv.rows, layer->qkv_bias, (size_t)layer->qkv.rows * sizeof *session->qkv);
  product(session, &layer->qkv, session->qkv, layer->qkv_bias != NULL, count);
  run(session, place, a, count);
  const int last = a->layer_index + 1 == session->model->weights.layer_count;
  if (last && !a->wanted_count)
    return;
  if (a->branches)
    run(session, attend_branches, a, c->kv_heads);
  else
    run(session, attend, a, c->kv_heads * tiles_of(a));
  if (last)
    keep_wanted(a);
  count = a->count;
  hold(session, copy, session->attended, NULL, queries, count);
  add_branch(session, &layer->o, layer->attention_post_norm, count);

  hold(session, normalize, session->x, layer->mlp_norm, hidden, count);
  product(session, &layer->gate_up, session->gate_up, 0, count);
  hold(session, gate, session->gate_up, NULL, c->intermediate_size, count);
  add_branch(session, &layer->down, layer->mlp_post_norm, count);
}

static slm_status run_layers(struct attention *a, const int32_t *ids) {
  slm_session *session = a->session;
  const struct weights *weights = &session->model->weights;
  const struct config *c = &weights->config;
  for (int64_t row = 0; row < a->count; row++)
    unpack_row(&weights->embedding, c->group, ids[row], c->embedding_scale, session->x + row * c->hidden_size);
  for (a->layer_index = 0; a->layer_index < weights->layer_count; a->layer_index++) {
    if (atomic_exchange_explicit(&session->cancelled, 0, memory_order_relaxed))
      return SLM_CANCELLED;
    run_layer(a);
  }
  return SLM_OK;
}

slm_status slm_forward(slm_session *session, const int32_t *ids, int64_t count, int last) {
  const int64_t wanted = count - 1;
  return run_layers(
      &(struct attention){.session = session, .count = count, .wanted = &wanted, .wanted_count = last != 0}, ids);
}

slm_status slm_forward_branches(slm_session *session, struct branches *branches, const int32_t *ids, int64_t first,
                                int64_t count, const int64_t *wanted, int64_t wanted_count) {
  return run_layers(&(struct attention){.session = session,
                                        .count = count,
                                        .branches = branches,
                                        .first = first,
                                        .wanted = wanted,
                                        .wanted_count = wanted_count},
                    ids);
}

void slm_forward_head(slm_session *session, const struct matrix *head, int64_t count, float *logits) {
  const struct weights *weights = &session->model->weights;
  hold(session, normalize, session->x, weights->norm, weights->config.hidden_size, count);
  product(session, head, logits, 0, count);
}
