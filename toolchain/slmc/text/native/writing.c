#include "writing.h"

#include <math.h>

#include "error.h"
#include "utf8.h"

static slm_status refuse(slm_error *error, slm_status status, const char *text) {
  return slm_fail(error, status, "%s", text);
}

static slm_status no_memory(slm_error *error) { return refuse(error, SLM_NO_MEMORY, "no memory for the answer"); }

void slm_writing_clear(struct writing *w) {
  slm_spelling_clear(&w->spelling);
  buffer_free(&w->stops);
  buffer_free(&w->ids);
  buffer_free(&w->logprobs);
  buffer_free(&w->allowed);
  buffer_free(&w->candidates);
  buffer_free(&w->text);
}

/* ---- What is asked --------------------------------------------------------------------------------------------- */

static slm_status keep_stops(struct writing *w, const slm_sampling *asked, slm_error *error) {
  struct buffer *stops = &w->stops;
  stops->size = 0;
  for (size_t i = 0; i < asked->stop_count; i++) {
    const slm_text *stop = &asked->stops[i];
    if (!stop->bytes || !stop->size)
      return refuse(error, SLM_BAD_ARGUMENT, "a stop string without characters");
    if (!utf8_valid((const uint8_t *)stop->bytes, stop->size))
      return refuse(error, SLM_BAD_TEXT, "a stop string that is not UTF-8");
    if (!buffer_append(stops, &stop->size, sizeof stop->size) || !buffer_append(stops, stop->bytes, stop->size))
      return refuse(error, SLM_NO_MEMORY, "no memory for the stop strings");
  }
  return SLM_OK;
}

slm_status slm_writing_ask(struct writing *w, const slm_sampling *sampling, slm_error *error) {
  const slm_sampling greedy = {0}, *asked = sampling ? sampling : &greedy;
  if (!(asked->temperature >= 0 && asked->temperature <= 1000) || !(asked->top_p >= 0 && asked->top_p <= 1) ||
      asked->top_k < 0 || asked->max_tokens < 0 || (!asked->stops && asked->stop_count))
    return refuse(error, SLM_BAD_ARGUMENT,
                  "a temperature from 0 to 1000, top_p from 0 to 1, top_k and max_tokens from 0 on are possible");
  w->sampling = (struct sampling){
      .temperature = (double)asked->temperature,
      .top_p = asked->top_p > 0 ? (double)asked->top_p : 1,
      .top_k = (size_t)asked->top_k,
  };
  w->random = asked->seed;
  w->limit = (size_t)asked->max_tokens;
  return keep_stops(w, asked, error);
}

static int reserve(struct writing *w, size_t vocab_size) {
  return buffer_reserve(&w->candidates, (vocab_size + 1) * sizeof(struct candidate)) &&
         buffer_reserve(&w->allowed, w->task->grammar.tokens * sizeof(int32_t));
}

slm_status slm_writing_begin(struct writing *w, const slm_task *task, size_t room, size_t vocab_size,
                             slm_error *error) {
  w->task = task;
  if (!reserve(w, vocab_size))
    return no_memory(error);
  if (!w->limit || w->limit > room)
    w->limit = room;
  w->done = SLM_MORE;
  w->state = GRAMMAR_START;
  w->ids.size = w->logprobs.size = 0;
  w->spelling.tokenizer = &task->tokenizer;
  slm_spelling_restart(&w->spelling);
  w->text.size = w->given = 0;
  w->prefix_passed = 0;
  w->begun = 1;
  return SLM_OK;
}

/* ---- The next token -------------------------------------------------------------------------------------------- */

/* The tokens that may come next, in order; how many. */
static size_t find_candidates(struct writing *w, const float *logits, size_t vocab_size) {
  const struct grammar *grammar = &w->task->grammar;
  struct candidate *candidates = (struct candidate *)(void *)w->candidates.bytes;
  int32_t *allowed = (int32_t *)(void *)w->allowed.bytes;
  const int32_t end = (int32_t)w->task->prompt.end_id;
  size_t count = 0;
  if (!grammar->states) {
    for (; count < vocab_size; count++)
      candidates[count] = (struct candidate){logits[count], (int32_t)count};
    return count;
  }
  const size_t most = slm_grammar_allowed(grammar, w->state, allowed);
  int may_end = grammar_accepts(grammar, w->state);
  for (size_t i = 0; i < most; i++) {
    if (may_end && end < allowed[i]) {
      candidates[count++] = (struct candidate){logits[end], end};
      may_end = 0;
    }
    candidates[count++] = (struct candidate){logits[allowed[i]], allowed[i]};
  }
  if (may_end)
    candidates[count++] = (struct candidate){logits[end], end};
  return count;
}

static slm_status step(struct writing *w, int32_t id, slm_error *error) {
  const struct grammar *grammar = &w->task->grammar;
  if (grammar->states) {
    w->state = slm_grammar_step(grammar, &w->task->tokenizer, w->state, (uint32_t)id, !w->ids.size);
    if (w->state == GRAMMAR_DEAD)
      return refuse(error, SLM_BAD_FILE, "the task's grammar allows a token that no answer goes on from");
  }
  return buffer_append(&w->ids, &id, sizeof id) && slm_spell_id(&w->spelling, id) ? SLM_OK : no_memory(error);
}

/* One more token, or the end; what it spells is in `spelling.out`. */
static slm_status take_token(struct writing *w, const float *logits, size_t vocab_size, slm_error *error) {
  const double whole = slm_log_sum_exp(logits, vocab_size);
  if (!isfinite(whole))
    return refuse(error, SLM_BAD_NUMBERS, "the model answered with values that are no numbers");
  if (!reserve(w, vocab_size))
    return no_memory(error);
  const size_t count = find_candidates(w, logits, vocab_size);
  if (!count)
    return refuse(error, SLM_BAD_FILE, "the task's grammar has no way on");
  const int32_t id = slm_sample(&w->sampling, &w->random, (struct candidate *)(void *)w->candidates.bytes, count);
  const double logprob = (double)logits[id] - whole;
  if (!buffer_append(&w->logprobs, &logprob, sizeof logprob))
    return no_memory(error);
  if (id == (int32_t)w->task->prompt.end_id) {
    w->done = SLM_ENDED;
    w->spelling.out.size = 0;
    return SLM_OK;
  }
  const slm_status status = step(w, id, error);
  if (!status && w->ids.size / sizeof id == w->limit)
    w->done = SLM_LENGTH;
  return status;
}

/* ---- Its text -------------------------------------------------------------------------------------------------- */

static void drop_text(struct writing *w, size_t size) {
  w->text.size -= size;
  if (size && w->text.size)
    memmove(w->text.bytes, w->text.bytes + size, w->text.size);
}

/* Leave out what stands before every answer; 0 while that can't be told. */
static int pass_prefix(struct writing *w) {
  size_t size, same = 0;
  const uint8_t *prefix = prompt_answer_prefix(&w->task->prompt, &size);
  while (same < size && same < w->text.size && prefix[same] == w->text.bytes[same])
    same++;
  if (same == w->text.size && same < size && w->done == SLM_MORE)
    return 0;
  if (same == size)
    drop_text(w, size);
  w->prefix_passed = 1;
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
static size_t stop_before(const struct writing *w, size_t end, int part) {
  size_t longest = 0, size;
  const uint8_t *stop;
  for (size_t at = 0; at < w->stops.size;) {
    at = stop_at(&w->stops, at, &stop, &size);
    for (size_t some = part ? size - 1 : size; some > longest; some = part ? some - 1 : 0) {
      if (some <= end && !memcmp(w->text.bytes + end - some, stop, some))
        longest = some;
    }
  }
  return longest;
}

/* How much of the text can be given: up to the stop string that is whole first, or to where one may have begun. */
static size_t find_certain(struct writing *w) {
  for (size_t end = 1; end <= w->text.size; end++) {
    const size_t stop = stop_before(w, end, 0);
    if (stop) {
      w->done = SLM_STOPPED;
      return end - stop;
    }
  }
  return w->text.size - (w->done == SLM_MORE ? stop_before(w, w->text.size, 1) : 0);
}

static slm_status add_text(struct writing *w, slm_error *error) {
  const struct buffer *out = &w->spelling.out;
  int written = buffer_append(&w->text, out->bytes, out->size);
  if (written && w->done != SLM_MORE)
    written = slm_spell_rest(&w->spelling) && buffer_append(&w->text, out->bytes, out->size);
  if (!written)
    return no_memory(error);
  if (w->prefix_passed || pass_prefix(w))
    w->given = find_certain(w);
  return SLM_OK;
}

slm_status slm_writing_take(struct writing *w, const float *logits, size_t vocab_size, slm_error *error) {
  drop_text(w, w->given);
  w->given = 0;
  slm_status status = take_token(w, logits, vocab_size, error);
  if (!status)
    status = add_text(w, error);
  w->begun = !status;
  return status;
}

slm_text slm_writing_text(const struct writing *w) { return (slm_text){(const char *)w->text.bytes, w->given}; }

const int32_t *slm_writing_ids(const struct writing *w, size_t *count) {
  *count = w->ids.size / sizeof(int32_t);
  return (const int32_t *)(const void *)w->ids.bytes;
}

const double *slm_writing_logprobs(const struct writing *w, size_t *count) {
  *count = w->logprobs.size / sizeof(double);
  return (const double *)(const void *)w->logprobs.bytes;
}
