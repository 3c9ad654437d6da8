#include "answers.h"

#include <math.h>
#include <string.h>
#include <time.h>

#include "error.h"
#include "json.h"

enum { TOP = 64 /* of the likeliest tokens a score tells; slmc/runners/contract.py */ };

struct times {
  double prefill_ms, decode_ms;
  int64_t prefill_tokens, decode_tokens, decode_steps;
};

static double now_ms(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec * 1e3 + (double)time.tv_nsec / 1e6;
}

/* ---- What is written -------------------------------------------------------------------------------------------- */

static void write_ids(FILE *file, const char *name, const int32_t *ids, size_t count) {
  fprintf(file, ",\"%s\":[", name);
  for (size_t i = 0; i < count; i++)
    fprintf(file, "%s%d", i ? "," : "", (int)ids[i]);
  fputc(']', file);
}

/* Rounding is as in slmc/runners/logprobs.py. */
static void write_logprob(FILE *file, double logprob) { fprintf(file, "%.6f", logprob); }

/* What all answers have. */
static void write_common(const struct answering *a, const struct item *item, const char *mode,
                         const struct times *times) {
  fputs("\"id\":", a->result);
  json_write(a->result, item->id.bytes, item->id.size);
  fprintf(a->result,
          ",\"mode\":\"%s\",\"prefill_ms\":%.6f,\"decode_ms\":%.6f,\"prefill_tokens\":%lld,\"decode_tokens\":%lld,"
          "\"decode_steps\":%lld",
          mode, times->prefill_ms, times->decode_ms, (long long)times->prefill_tokens, (long long)times->decode_tokens,
          (long long)times->decode_steps);
}

/* The prompt's ids as they were read, where they are not the workload's. */
static void write_own_ids(const struct answering *a, const struct item *item) {
  size_t count;
  const int32_t *ids = slm_prompt_ids(a->decider, &count);
  if (count != ids_count(&item->input_ids) || memcmp(ids, item->input_ids.bytes, item->input_ids.size))
    write_ids(a->result, "input_ids", ids, count);
}

static slm_status end_line(const struct answering *a, slm_error *error) {
  fputs("}\n", a->result);
  if (fflush(a->result))
    return slm_fail(error, SLM_NO_FILE, "the result can't be written: no space left, or the storage failed");
  return SLM_OK;
}

/* ---- A session -------------------------------------------------------------------------------------------------- */

static slm_status session_failure(const struct answering *a, slm_status status, slm_error *error) {
  return slm_fail(error, status, "%s", slm_error_text(a->session));
}

static slm_status begin(struct answering *a, const struct item *item, struct times *times, slm_error *error) {
  const slm_session_options options = {.threads = a->threads};
  slm_status status = a->session ? SLM_OK : slm_session_new(a->model, &options, &a->session, error);
  if (status)
    return status;
  slm_rewind(a->session, 0);
  const double start = now_ms();
  status = slm_prefill(a->session, ids_of(&item->input_ids), ids_count(&item->input_ids));
  *times = (struct times){.prefill_ms = now_ms() - start, .prefill_tokens = (int64_t)ids_count(&item->input_ids)};
  return status ? session_failure(a, status, error) : SLM_OK;
}

static slm_status read_one(struct answering *a, int32_t id, struct times *times, slm_error *error) {
  const double start = now_ms();
  const slm_status status = slm_decode(a->session, id);
  times->decode_ms += now_ms() - start;
  times->decode_tokens++;
  times->decode_steps++;
  return status ? session_failure(a, status, error) : SLM_OK;
}

/* Log-probabilities of the next token into `logprobs`. */
static slm_status find_logprobs(struct answering *a, slm_error *error) {
  const float *logits = slm_logits(a->session);
  double most = -INFINITY, sum = 0;
  for (int32_t i = 0; i < a->vocab_size; i++) {
    if (!isfinite(logits[i]))
      return slm_fail(error, SLM_BAD_NUMBERS, "the model's logits are not finite numbers");
    most = (double)logits[i] > most ? (double)logits[i] : most;
  }
  for (int32_t i = 0; i < a->vocab_size; i++)
    sum += exp((double)logits[i] - most);
  const double whole = most + log(sum);
  for (int32_t i = 0; i < a->vocab_size; i++)
    a->logprobs[i] = (double)logits[i] - whole;
  return SLM_OK;
}

static int32_t likeliest(const struct answering *a) {
  int32_t best = 0;
  for (int32_t i = 1; i < a->vocab_size; i++)
    best = a->logprobs[i] > a->logprobs[best] ? i : best;
  return best;
}

/* ---- Text ------------------------------------------------------------------------------------------------------- */

static void write_generated(const struct answering *a, const struct item *item, const struct times *times,
                            const int32_t *ids, size_t count, const double *logprobs, size_t logprob_count) {
  fputc('{', a->result);
  write_common(a, item, "generate", times);
  write_ids(a->result, "output_ids", ids, count);
  fprintf(a->result, ",\"ended\":%s,\"text\":null,\"logprobs\":[", logprob_count > count ? "true" : "false");
  for (size_t i = 0; i < logprob_count; i++) {
    fputs(i ? "," : "", a->result);
    write_logprob(a->result, logprobs[i]);
  }
  fputc(']', a->result);
}

/* From the item's ids, whatever the task. */
static slm_status generate_from_ids(struct answering *a, const struct workload *workload, const struct item *item,
                                    slm_error *error) {
  struct times times;
  struct buffer logprobs = {0};
  slm_status status = begin(a, item, &times, error);
  a->ids.size = 0;
  while (!status && !(status = find_logprobs(a, error))) {
    const int32_t id = likeliest(a);
    if (!buffer_append(&logprobs, &a->logprobs[id], sizeof *a->logprobs) || !buffer_append(&a->ids, &id, sizeof id))
      status = slm_fail(error, SLM_NO_MEMORY, "no memory for an answer");
    if (id == workload->end_id && !item->ignore_end) {
      a->ids.size -= sizeof id;
      break;
    }
    if (ids_count(&a->ids) == (size_t)item->max_tokens)
      break;
    status = status ? status : read_one(a, id, &times, error);
  }
  if (!status) {
    const double *values = (const double *)(const void *)logprobs.bytes;
    write_generated(a, item, &times, ids_of(&a->ids), ids_count(&a->ids), values, logprobs.size / sizeof *values);
  }
  buffer_free(&logprobs);
  return status;
}

static slm_status decider_failure(const struct answering *a, slm_status status, slm_error *error) {
  return slm_fail(error, status, "%s", slm_decider_error_text(a->decider));
}

/* The item's texts in the task's order. */
static slm_status take_fields(struct answering *a, const struct item *item, slm_error *error) {
  const size_t count = slm_field_count(a->task);
  a->texts.size = 0;
  for (size_t i = 0; i < count; i++) {
    const slm_text name = slm_field_name(a->task, i), text = item_field(item, name);
    if (!text.bytes || item->fields != count)
      return slm_fail(error, SLM_BAD_FILE, "the item has not the fields that the task file's prompt is made of");
    if (!buffer_append(&a->texts, &text, sizeof text))
      return slm_fail(error, SLM_NO_MEMORY, "no memory for an item");
  }
  return SLM_OK;
}

static const slm_text *texts_of(const struct answering *a) { return (const slm_text *)(const void *)a->texts.bytes; }

static slm_status generate(struct answering *a, const struct item *item, slm_error *error) {
  const slm_sampling sampling = {.max_tokens = item->max_tokens};
  slm_text text;
  int32_t done = SLM_MORE;
  slm_status status = take_fields(a, item, error);
  if (status)
    return status;
  const double start = now_ms();
  status = slm_answer_begin(a->decider, texts_of(a), slm_field_count(a->task), &sampling);
  const double begun = now_ms();
  while (!status && done == SLM_MORE)
    status = slm_answer_next(a->decider, &text, &done);
  if (status)
    return decider_failure(a, status, error);
  size_t count, logprob_count, prompt;
  const int32_t *ids = slm_answer_ids(a->decider, &count);
  const double *logprobs = slm_answer_logprobs(a->decider, &logprob_count);
  slm_prompt_ids(a->decider, &prompt);
  const int64_t steps = count ? (int64_t)count - 1 : 0;
  const struct times times = {begun - start, now_ms() - begun, (int64_t)prompt, steps, steps};
  write_generated(a, item, &times, ids, count, logprobs, logprob_count);
  write_own_ids(a, item);
  return SLM_OK;
}

/* ---- Choices ---------------------------------------------------------------------------------------------------- */

static slm_status choose(struct answering *a, const struct workload *workload, const struct item *item,
                         slm_error *error) {
  const struct lists *choices = &workload->choices[item->set];
  const size_t labels = lists_count(choices);
  if (!a->decider || !item->has_fields)
    return slm_fail(error, SLM_BAD_ARGUMENT, "choices need --task and an item with fields");
  if (labels != slm_label_count(a->task))
    return slm_fail(error, SLM_BAD_FILE, "%zu choices for a task file of %zu labels", labels, slm_label_count(a->task));
  slm_status status = take_fields(a, item, error);
  if (status)
    return status;
  slm_decision d;
  if ((status = slm_classify(a->decider, texts_of(a), slm_field_count(a->task), &d)))
    return decider_failure(a, status, error);
  const struct times times = {(double)d.prefill_nanoseconds / 1e6, (double)d.decode_nanoseconds / 1e6, d.prefill_tokens,
                              d.decode_tokens, d.decode_steps};
  size_t count;
  const int32_t *ids = list_at(choices, (size_t)d.choice, &count);
  fputc('{', a->result);
  write_common(a, item, "choose", &times);
  fprintf(a->result, ",\"choice\":%d,\"unexplored\":%.9g,\"text\":null", (int)d.choice, (double)d.unexplored);
  write_ids(a->result, "output_ids", ids, count);
  fputs(",\"choice_logprobs\":[", a->result);
  for (size_t i = 0, told = 0; i < labels; i++) {
    const double logprob = slm_choice_logprob(a->decider, (int32_t)i);
    if (!isnan(logprob)) {
      fprintf(a->result, "%s[%zu,", told++ ? "," : "", i);
      write_logprob(a->result, logprob);
      fputc(']', a->result);
    }
  }
  fputc(']', a->result);
  write_own_ids(a, item);
  return SLM_OK;
}

/* ---- Scores ----------------------------------------------------------------------------------------------------- */

static int before(const struct answering *a, int32_t one, int32_t other) {
  const double left = a->logprobs[one], right = a->logprobs[other];
  return left != right ? left > right : one < other;
}

/* The `count` likeliest ids in order, by insertion: few come late in a vocabulary. */
static void find_top(const struct answering *a, int32_t count) {
  int32_t held = 0;
  for (int32_t id = 0; id < a->vocab_size; id++) {
    if (held == count && !before(a, id, a->order[held - 1]))
      continue;
    int32_t at = held < count ? held++ : held - 1;
    for (; at && before(a, id, a->order[at - 1]); at--)
      a->order[at] = a->order[at - 1];
    a->order[at] = id;
  }
}

static void write_position(const struct answering *a, const struct item *item, size_t index) {
  const int32_t count = a->vocab_size < TOP ? a->vocab_size : TOP;
  find_top(a, count);
  fprintf(a->result, "%s{\"top\":[", index ? "," : "");
  for (int32_t i = 0; i < count; i++) {
    fprintf(a->result, "%s[%d,", i ? "," : "", (int)a->order[i]);
    write_logprob(a->result, a->logprobs[a->order[i]]);
    fputc(']', a->result);
  }
  fputs("],\"logprob\":", a->result);
  write_logprob(a->result, a->logprobs[ids_of(&item->score_ids)[index]]);
  if (item->has_watch) {
    size_t watched;
    const int32_t *ids = list_at(&item->watch, index, &watched);
    fputs(",\"watched\":[", a->result);
    for (size_t i = 0; i < watched; i++) {
      fputs(i ? "," : "", a->result);
      write_logprob(a->result, a->logprobs[ids[i]]);
    }
    fputc(']', a->result);
  }
  fputc('}', a->result);
}

static slm_status score(struct answering *a, const struct item *item, slm_error *error) {
  const int32_t *ids = ids_of(&item->score_ids);
  const size_t count = ids_count(&item->score_ids);
  struct times times;
  slm_status status = begin(a, item, &times, error);
  if (status)
    return status;
  fputs("{\"positions\":[", a->result);
  for (size_t i = 0; i < count; i++) {
    if ((status = find_logprobs(a, error)))
      return status;
    write_position(a, item, i);
    if (i + 1 < count && (status = read_one(a, ids[i], &times, error)))
      return status;
  }
  fputs("],", a->result);
  write_common(a, item, "score", &times); /* its times are known now */
  return SLM_OK;
}

/* ---- Any item --------------------------------------------------------------------------------------------------- */

static int within(const struct answering *a, const struct buffer *ids) {
  for (size_t i = 0; i < ids_count(ids); i++)
    if (ids_of(ids)[i] >= a->vocab_size)
      return 0;
  return 1;
}

slm_status answer_item(struct answering *a, const struct workload *workload, const struct item *item,
                       slm_error *error) {
  if (!within(a, &item->input_ids) || !within(a, &item->score_ids) || (item->has_watch && !within(a, &item->watch.ids)))
    return slm_fail(error, SLM_BAD_FILE, "a token beyond the vocabulary of %d", (int)a->vocab_size);
  slm_status status = SLM_OK;
  if (item->mode == CHOOSE)
    status = choose(a, workload, item, error);
  else if (item->mode == SCORE)
    status = score(a, item, error);
  else if (a->decider && item->has_fields)
    status = generate(a, item, error);
  else
    status = generate_from_ids(a, workload, item, error);
  return status ? status : end_line(a, error);
}
