/* slm.h: answers in text. */
#include "answer.h"

#include <string.h>

#include "decider.h"
#include "error.h"
#include "utf8.h"

static slm_status refuse(slm_decider *d, slm_status status, const char *text) {
  return slm_fail(&d->session->error, status, "%s", text);
}

void slm_answer_clear(struct answer *answer) {
  slm_spelling_clear(&answer->spelling);
  buffer_free(&answer->text);
  buffer_free(&answer->stops);
}

/* ---- What is asked --------------------------------------------------------------------------------------------- */

static slm_status keep_stops(slm_decider *d, const slm_sampling *asked) {
  struct buffer *stops = &d->answer.stops;
  stops->size = 0;
  for (size_t i = 0; i < asked->stop_count; i++) {
    const slm_text *stop = &asked->stops[i];
    if (!stop->bytes || !stop->size)
      return refuse(d, SLM_BAD_ARGUMENT, "a stop string without characters");
    if (!utf8_valid((const uint8_t *)stop->bytes, stop->size))
      return refuse(d, SLM_BAD_TEXT, "a stop string that is not UTF-8");
    if (!buffer_append(stops, &stop->size, sizeof stop->size) || !buffer_append(stops, stop->bytes, stop->size))
      return refuse(d, SLM_NO_MEMORY, "no memory for the stop strings");
  }
  return SLM_OK;
}

static slm_status keep_sampling(slm_decider *d, const slm_sampling *asked) {
  if (!(asked->temperature >= 0 && asked->temperature <= 1000) || !(asked->top_p >= 0 && asked->top_p <= 1) ||
      asked->top_k < 0 || asked->max_tokens < 0 || (!asked->stops && asked->stop_count))
    return refuse(d, SLM_BAD_ARGUMENT,
                  "a temperature from 0 to 1000, top_p from 0 to 1, top_k and max_tokens from 0 on are possible");
  d->answer.sampling = (struct sampling){
      .temperature = (double)asked->temperature,
      .top_p = asked->top_p > 0 ? (double)asked->top_p : 1,
      .top_k = (size_t)asked->top_k,
  };
  d->answer.random = asked->seed;
  return keep_stops(d, asked);
}

static void begin(slm_decider *d, int32_t max_tokens) {
  struct answer *a = &d->answer;
  /* The last token need not be read. */
  const size_t room = (size_t)d->session->context - d->prompt_tokens + 1;
  a->limit = max_tokens && (size_t)max_tokens < room ? (size_t)max_tokens : room;
  a->done = SLM_MORE;
  a->state = GRAMMAR_START;
  a->count = a->logprob_count = 0;
  a->spelling.tokenizer = &d->task->tokenizer;
  slm_spelling_restart(&a->spelling);
  a->text.size = a->given = 0;
  a->prefix_passed = 0;
  a->begun = 1;
}

slm_status slm_answer_begin(slm_decider *decider, const slm_text *fields, size_t count, const slm_sampling *sampling) {
  const slm_sampling greedy = {0}, *asked = sampling ? sampling : &greedy;
  decider->answer.begun = 0;
  if (!fields && count)
    return refuse(decider, SLM_BAD_ARGUMENT, "slm_answer_begin needs fields");
  int32_t read = 0;
  slm_status status = keep_sampling(decider, asked);
  if (!status)
    status = slm_decider_encode(decider, fields, count);
  if (!status)
    status = slm_decider_read(decider, 0, &read);
  if (!status)
    status = slm_session_find_logits(decider->session, (size_t)read);
  if (!status)
    begin(decider, asked->max_tokens);
  return status;
}

/* ---- The next token -------------------------------------------------------------------------------------------- */

/* The last token, where the session has not read it yet. */
static slm_status read_last(slm_decider *d) {
  const size_t position = (size_t)d->session->position, wanted = d->prompt_tokens + d->answer.count;
  if (position == wanted)
    return SLM_OK;
  const int32_t *last = &d->answer.ids[d->answer.count - 1];
  slm_status status = slm_session_read(d->session, last, 1);
  if (!status)
    status = slm_session_find_logits(d->session, 1);
  if (!status)
    d->held[position] = *last;
  return status;
}

static void add_candidate(slm_decider *d, size_t *count, int32_t id) {
  d->answer.candidates[(*count)++] = (struct candidate){d->session->logits[id], id};
}

/* The tokens that may come next, in order; how many. */
static size_t find_candidates(slm_decider *d) {
  const struct grammar *grammar = &d->task->grammar;
  const int32_t end = (int32_t)d->task->prompt.end_id;
  size_t count = 0;
  if (!grammar->states) {
    for (uint32_t id = 0; id < d->session->model->weights.config.vocab_size; id++)
      add_candidate(d, &count, (int32_t)id);
    return count;
  }
  const size_t allowed = slm_grammar_allowed(grammar, d->answer.state, d->answer.allowed);
  int may_end = grammar_accepts(grammar, d->answer.state);
  for (size_t i = 0; i < allowed; i++) {
    if (may_end && end < d->answer.allowed[i]) {
      add_candidate(d, &count, end);
      may_end = 0;
    }
    add_candidate(d, &count, d->answer.allowed[i]);
  }
  if (may_end)
    add_candidate(d, &count, end);
  return count;
}

static slm_status step(slm_decider *d, int32_t id) {
  const struct grammar *grammar = &d->task->grammar;
  struct answer *a = &d->answer;
  if (grammar->states) {
    a->state = slm_grammar_step(grammar, &d->task->tokenizer, a->state, (uint32_t)id, !a->count);
    if (a->state == GRAMMAR_DEAD)
      return refuse(d, SLM_BAD_FILE, "the task's grammar allows a token that no answer goes on from");
  }
  a->ids[a->count++] = id;
  return slm_spell_id(&a->spelling, id) ? SLM_OK : refuse(d, SLM_NO_MEMORY, "no memory for the answer");
}

/* One more token, or the end; what it spells is in `spelling.out`. */
static slm_status take_token(slm_decider *d) {
  struct answer *a = &d->answer;
  slm_status status = read_last(d);
  if (status)
    return status;
  const size_t count = find_candidates(d);
  if (!count)
    return refuse(d, SLM_BAD_FILE, "the task's grammar has no way on");
  const int32_t id = slm_sample(&a->sampling, &a->random, a->candidates, count);
  const float *logits = d->session->logits;
  a->logprobs[a->logprob_count++] =
      (double)logits[id] - slm_log_sum_exp(logits, d->session->model->weights.config.vocab_size);
  if (id == (int32_t)d->task->prompt.end_id) {
    a->done = SLM_ENDED;
    a->spelling.out.size = 0;
    return SLM_OK;
  }
  status = step(d, id);
  if (!status && a->count == a->limit)
    a->done = SLM_LENGTH;
  return status;
}

/* ---- Its text -------------------------------------------------------------------------------------------------- */

static void drop_text(struct answer *a, size_t size) {
  a->text.size -= size;
  if (size && a->text.size)
    memmove(a->text.bytes, a->text.bytes + size, a->text.size);
}

/* Leave out what stands before every answer; 0 while that can't be told. */
static int pass_prefix(slm_decider *d) {
  struct answer *a = &d->answer;
  size_t size, same = 0;
  const uint8_t *prefix = prompt_answer_prefix(&d->task->prompt, &size);
  while (same < size && same < a->text.size && prefix[same] == a->text.bytes[same])
    same++;
  if (same == a->text.size && same < size && a->done == SLM_MORE)
    return 0;
  if (same == size)
    drop_text(a, size);
  a->prefix_passed = 1;
  return 1;
}

/* The stop string at `at` of all of them; where the next one is. */
static size_t stop_at(const struct buffer *stops, size_t at, const uint8_t **bytes, size_t *size) {
  memcpy(size, stops->bytes + at, sizeof *size);
  *bytes = stops->bytes + at + sizeof *size;
  return at + sizeof *size + *size;
}

/* How many bytes before a place of the text the longest stop string begins that ends there; 0 where none does. With
 * `part`, its beginning is enough. */
static size_t stop_before(const struct answer *a, size_t end, int part) {
  size_t longest = 0, size;
  const uint8_t *stop;
  for (size_t at = 0; at < a->stops.size;) {
    at = stop_at(&a->stops, at, &stop, &size);
    for (size_t some = part ? size - 1 : size; some > longest; some = part ? some - 1 : 0) {
      if (some <= end && !memcmp(a->text.bytes + end - some, stop, some))
        longest = some;
    }
  }
  return longest;
}

/* How much of the text can be given: up to the stop string that is whole first, or to where one may have begun. */
static size_t find_certain(struct answer *a) {
  for (size_t end = 1; end <= a->text.size; end++) {
    const size_t stop = stop_before(a, end, 0);
    if (stop) {
      a->done = SLM_STOPPED;
      return end - stop;
    }
  }
  return a->text.size - (a->done == SLM_MORE ? stop_before(a, a->text.size, 1) : 0);
}

static slm_status add_text(slm_decider *d) {
  struct answer *a = &d->answer;
  const struct buffer *out = &a->spelling.out;
  int written = buffer_append(&a->text, out->bytes, out->size);
  if (written && a->done != SLM_MORE)
    written = slm_spell_rest(&a->spelling) && buffer_append(&a->text, out->bytes, out->size);
  if (!written)
    return refuse(d, SLM_NO_MEMORY, "no memory for the answer");
  if (a->prefix_passed || pass_prefix(d))
    a->given = find_certain(a);
  return SLM_OK;
}

slm_status slm_answer_next(slm_decider *decider, slm_text *text, int32_t *done) {
  struct answer *a = &decider->answer;
  if (!text || !done || !a->begun)
    return refuse(decider, SLM_BAD_ARGUMENT,
                  "slm_answer_next needs an answer that was begun, and places for what it says");
  drop_text(a, a->given);
  a->given = 0;
  if (a->done == SLM_MORE) {
    slm_status status = take_token(decider);
    if (!status)
      status = add_text(decider);
    if (status) {
      a->begun = status == SLM_CANCELLED;
      return status;
    }
  } else {
    a->text.size = 0; /* what came after a stop string */
  }
  *text = (slm_text){(const char *)a->text.bytes, a->given};
  *done = a->done;
  return SLM_OK;
}

const int32_t *slm_answer_ids(const slm_decider *decider, size_t *count) {
  *count = decider->answer.count;
  return decider->answer.ids;
}

const double *slm_answer_logprobs(const slm_decider *decider, size_t *count) {
  *count = decider->answer.logprob_count;
  return decider->answer.logprobs;
}
