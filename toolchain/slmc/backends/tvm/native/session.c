#include "session.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "error.h"
#include "sampling.h"

enum { ALIGNMENT = 64, MOST_THREADS = 256 };

uint64_t slm_now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static slm_status refuse(slm_session *session, slm_status status, const char *text) {
  return slm_fail(&session->error, status, "%s", text);
}

/* ---- Memory --------------------------------------------------------------------------------------------------- */

/* Where the next array of `size` bytes lies; with no memory yet, only how much there will be. */
static void *place(slm_session *session, uint64_t *used, uint64_t size) {
  void *found = session->memory ? session->memory + *used : NULL;
  *used += (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  return found;
}

/* All arrays of a session; how many bytes they take. */
static uint64_t lay_out(slm_session *session) {
  const struct weights *weights = &session->model->weights;
  const struct config *c = &weights->config;
  const uint64_t rows = session->context < CHUNK ? (uint64_t)(session->context + ROW_TILE - 1) / ROW_TILE * ROW_TILE
                                                 : CHUNK;
  const uint64_t number = sizeof(float), hidden = c->hidden_size, inner = c->intermediate_size;
  const uint64_t queries = (uint64_t)c->heads * c->head_dim, qkv = (uint64_t)weights->layers[0].qkv.rows;
  const uint64_t wide = inner > hidden ? inner : hidden, widest = wide > queries ? wide : queries;
  const int exact = session->model->kernels->exact;
  uint64_t used = 0;
  session->x = place(session, &used, rows * hidden * number);
  session->branch = place(session, &used, rows * hidden * number);
  session->qkv = place(session, &used, rows * qkv * number);
  session->attended = place(session, &used, rows * queries * number);
  session->gate_up = place(session, &used, rows * 2 * inner * number);
  session->held.values = place(session, &used, rows * widest * (exact ? number : 1));
  session->held.scales = place(session, &used, rows * widest / BLOCK * number);
  session->held.offsets = place(session, &used, rows * widest / BLOCK * number);
  session->logits = place(session, &used, (uint64_t)weights->head.rows * number);
  session->kept_logits = place(session, &used, (uint64_t)weights->head.rows * number);
  /* A cache line more, so that threads don't share one. */
  session->per_thread_floats = MOST_QUERIES * (2 * (int64_t)c->head_dim + session->padded_context) + ALIGNMENT / 4;
  session->per_thread = place(session, &used, (uint64_t)session->threads * session->per_thread_floats * number);
  const uint64_t cache = (uint64_t)weights->layer_count * c->kv_heads * session->padded_context * c->head_dim;
  session->keys = place(session, &used, cache * (exact ? 4 : 2));
  session->values = place(session, &used, cache * (exact ? 4 : 2));
  return used;
}

void *slm_take_memory(uint64_t size) {
  void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
  return memory == MAP_FAILED ? NULL : memory;
}

slm_status slm_session_new(const slm_model *model, const slm_session_options *options, slm_session **session,
                           slm_error *error) {
  if (error)
    *error = (slm_error){SLM_OK, ""};
  if (session)
    *session = NULL;
  if (!model || !session)
    return slm_fail(error, SLM_BAD_ARGUMENT, "slm_session_new needs a model and a place for the session");
  const slm_session_options none = {0}, *asked = options ? options : &none;
  const int64_t most = model->weights.config.context, context = asked->context ? asked->context : most;
  if (context < 1 || context > most || asked->threads < 0 || asked->threads > MOST_THREADS)
    return slm_fail(error, SLM_BAD_ARGUMENT, "a context of %lld or %d threads: from 1 to %lld, and 1 to %d, are possible",
                (long long)context, (int)asked->threads, (long long)most, (int)MOST_THREADS);
  slm_session *made = calloc(1, sizeof *made);
  if (!made)
    return slm_fail(error, SLM_NO_MEMORY, "no memory for a session");
  made->model = model;
  made->threads = asked->threads ? asked->threads : 1;
  made->context = context;
  const int64_t positions = model->kernels->positions;
  made->padded_context = (context + positions - 1) / positions * positions;
  made->stats.memory_bytes = lay_out(made);
  made->memory = slm_take_memory(made->stats.memory_bytes);
  made->pool = made->memory ? slm_pool_new(made->threads) : NULL;
  if (!made->pool) {
    const unsigned long long wanted = made->stats.memory_bytes;
    slm_session_free(made);
    return slm_fail(error, SLM_NO_MEMORY, "no memory for a session of %llu bytes and its threads", wanted);
  }
  lay_out(made);
  *session = made;
  return SLM_OK;
}

void slm_session_free(slm_session *session) {
  if (!session)
    return;
  slm_pool_free(session->pool);
  if (session->memory)
    munmap(session->memory, session->stats.memory_bytes);
  free(session);
}

/* ---- Reading -------------------------------------------------------------------------------------------------- */

static int all_finite(const float *values, int64_t count) {
  /* Infinities and NaNs have all bits of their exponent; asked of the bits, compilers make vectors of it. */
  const uint32_t exponent = 0x7f800000;
  uint32_t found = 0;
  for (int64_t i = 0; i < count; i++) {
    uint32_t bits;
    memcpy(&bits, &values[i], sizeof bits);
    found |= (bits & exponent) == exponent;
  }
  return !found;
}

slm_status slm_session_read(slm_session *session, const int32_t *ids, size_t count) {
  const int64_t begun = session->position;
  session->has_logits = 0;
  for (size_t done = 0; done < count; done += CHUNK) {
    const size_t some = count - done < CHUNK ? count - done : CHUNK;
    const slm_status status = slm_forward(session, ids + done, (int64_t)some, done + some == count);
    if (status) {
      session->position = begun;
      return refuse(session, status, "cancelled");
    }
    session->position += (int64_t)some;
  }
  return SLM_OK;
}

slm_status slm_session_find_logits(slm_session *session, size_t count) {
  const int64_t begun = session->position - (int64_t)count;
  slm_forward_head(session, &session->model->weights.head, 1, session->logits);
  if (!all_finite(session->logits, session->model->weights.config.vocab_size)) {
    session->position = begun;
    return refuse(session, SLM_BAD_NUMBERS, "the model answered with values that are no numbers");
  }
  session->has_logits = 1;
  return SLM_OK;
}

static slm_status read_ids(slm_session *session, const int32_t *ids, size_t count) {
  const slm_status status = slm_session_read(session, ids, count);
  return status ? status : slm_session_find_logits(session, count);
}

static slm_status check_ids(slm_session *session, const int32_t *ids, size_t count) {
  const struct config *c = &session->model->weights.config;
  if (!ids || count == 0)
    return refuse(session, SLM_BAD_ARGUMENT, "no tokens to read");
  if (count > (size_t)(session->context - session->position))
    return slm_fail(&session->error, SLM_CONTEXT_FULL, "%llu tokens after %lld don't fit into a context of %lld",
                (unsigned long long)count, (long long)session->position, (long long)session->context);
  for (size_t i = 0; i < count; i++) {
    if (ids[i] < 0 || (uint32_t)ids[i] >= c->vocab_size)
      return slm_fail(&session->error, SLM_BAD_ARGUMENT, "token %d is outside the vocabulary of %u", (int)ids[i],
                  c->vocab_size);
  }
  return SLM_OK;
}

slm_status slm_prefill(slm_session *session, const int32_t *ids, size_t count) {
  slm_status status = check_ids(session, ids, count);
  if (status)
    return status;
  const uint64_t begun = slm_now();
  status = read_ids(session, ids, count);
  if (status == SLM_OK) {
    *(count == 1 ? &session->stats.decode_tokens : &session->stats.prefill_tokens) += count;
    *(count == 1 ? &session->stats.decode_nanoseconds : &session->stats.prefill_nanoseconds) += slm_now() - begun;
  }
  return status;
}

slm_status slm_decode(slm_session *session, int32_t id) { return slm_prefill(session, &id, 1); }

size_t slm_position(const slm_session *session) { return (size_t)session->position; }

slm_status slm_rewind(slm_session *session, size_t position) {
  if (position > (size_t)session->position)
    return slm_fail(&session->error, SLM_BAD_ARGUMENT, "can't rewind to %llu of %lld tokens", (unsigned long long)position,
                (long long)session->position);
  if (position < (size_t)session->position)
    session->has_logits = 0;
  session->position = (int64_t)position;
  return SLM_OK;
}

void slm_cancel(slm_session *session) { atomic_store_explicit(&session->cancelled, 1, memory_order_relaxed); }

void slm_stats_get(const slm_session *session, slm_stats *stats) { *stats = session->stats; }

const char *slm_error_text(const slm_session *session) { return session->error.text; }

/* ---- Answers -------------------------------------------------------------------------------------------------- */

const float *slm_logits(const slm_session *session) { return session->has_logits ? session->logits : NULL; }

slm_status slm_top_k(const slm_session *session, size_t k, int32_t *ids, float *logprobs) {
  const int64_t vocab = session->model->weights.config.vocab_size;
  if (!session->has_logits || !ids || !logprobs || k == 0 || k > (size_t)vocab)
    return SLM_BAD_ARGUMENT;
  size_t found = 0;
  for (int64_t id = 0; id < vocab; id++) {
    const float logit = session->logits[id];
    if (found == k && logit <= logprobs[k - 1])
      continue;
    size_t place = found < k ? found++ : k - 1;
    for (; place > 0 && logprobs[place - 1] < logit; place--) {
      logprobs[place] = logprobs[place - 1];
      ids[place] = ids[place - 1];
    }
    logprobs[place] = logit;
    ids[place] = (int32_t)id;
  }
  const double whole = slm_log_sum_exp(session->logits, (size_t)vocab);
  for (size_t i = 0; i < k; i++)
    logprobs[i] = (float)(logprobs[i] - whole);
  return SLM_OK;
}

/* One continuation after what was read; the position is left behind its last token but one. */
static slm_status score(slm_session *session, const int32_t *ids, size_t length, double whole, float *logprob) {
  const int64_t vocab = session->model->weights.config.vocab_size;
  double sum = session->kept_logits[ids[0]] - whole;
  for (size_t i = 1; i < length; i++) {
    const slm_status status = read_ids(session, &ids[i - 1], 1);
    if (status)
      return status;
    sum += session->logits[ids[i]] - slm_log_sum_exp(session->logits, (size_t)vocab);
  }
  *logprob = (float)sum;
  return SLM_OK;
}

slm_status slm_continuations(slm_session *session, const int32_t *ids, const size_t *lengths, size_t count,
                             float *logprobs) {
  if (!session->has_logits || !lengths || !logprobs)
    return refuse(session, SLM_BAD_ARGUMENT, "continuations need logits, lengths and a place for the answers");
  size_t first = 0;
  for (size_t i = 0; i < count; first += lengths[i++]) {
    const slm_status status = check_ids(session, ids + first, lengths[i]);
    if (status)
      return status;
  }
  const int64_t vocab = session->model->weights.config.vocab_size, begun = session->position;
  const size_t bytes = (size_t)vocab * sizeof *session->logits;
  const double whole = slm_log_sum_exp(session->logits, (size_t)vocab);
  memcpy(session->kept_logits, session->logits, bytes);
  slm_status status = SLM_OK;
  for (size_t i = 0; i < count && status == SLM_OK; ids += lengths[i++]) {
    session->position = begun;
    status = score(session, ids, lengths[i], whole, &logprobs[i]);
  }
  session->position = begun;
  memcpy(session->logits, session->kept_logits, bytes);
  session->has_logits = 1;
  return status;
}
