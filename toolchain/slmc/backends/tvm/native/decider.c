#include "decider.h"

#include <math.h>
#include <stdio.h>

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "error.h"
#include "narrow.h"
#include "prefix.h"

enum { ALIGNMENT = 64 };

_Static_assert((int)MOST_STEP <= (int)CHUNK, "a node's tokens are read at once");

static slm_status refuse(slm_decider *d, slm_status status, const char *text) {
  return slm_fail(&d->session->error, status, "%s", text);
}

/* ---- Memory --------------------------------------------------------------------------------------------------- */

static void *place(slm_decider *d, uint64_t *used, uint64_t size) {
  void *found = d->memory ? d->memory + *used : NULL;
  *used += (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  return found;
}

/* All arrays; how many bytes they take. */
static uint64_t lay_out(slm_decider *d) {
  const struct weights *weights = &d->session->model->weights;
  const struct config *c = &weights->config;
  const struct choices *choices = &d->task->choices;
  uint64_t used = 0;
  d->held = place(d, &used, (uint64_t)d->session->context * sizeof *d->held);
  if (!choices->count)
    return used;
  const uint64_t row = 2 * (uint64_t)c->kv_heads * c->head_dim;
  void *search = place(d, &used, slm_search_bytes(choices));
  if (search)
    slm_search_place(choices, search, &d->search);
  uint8_t *head = place(d, &used, slm_narrow_size(&weights->head, c->group, choices->places));
  if (head)
    d->head = slm_narrow(&weights->head, c->group, choices->rows, choices->places, head);
  d->logits = place(d, &used, CHUNK * (uint64_t)slm_padded_rows(choices->places) * sizeof *d->logits);
  d->branches.most = choices->id_count;
  d->branches.parents = place(d, &used, choices->id_count * sizeof *d->branches.parents);
  d->branches.keys_values =
      place(d, &used, weights->layer_count * choices->id_count * row * sizeof *d->branches.keys_values);
  d->ids = place(d, &used, choices->id_count * sizeof *d->ids);
  d->last = place(d, &used, choices->nodes * sizeof *d->last);
  return used;
}

static slm_status check_options(const slm_model *model, const slm_task *task, const slm_decider_options *asked,
                                slm_error *error) {
  const uint32_t vocabulary = model->weights.config.vocab_size;
  if (!task->prompt.strings.count)
    return slm_fail(error, SLM_BAD_FILE, "the task file has a tokenizer, but no prompt");
  if (task->tokenizer.count > vocabulary)
    return slm_fail(error, SLM_BAD_FILE, "a task of %u tokens for a model of %u: they don't belong together",
                    task->tokenizer.count, vocabulary);
  if (!(asked->abstain_below >= 0))
    return slm_fail(error, SLM_BAD_ARGUMENT, "abstain_below is a probability");
  return SLM_OK;
}

static slm_status fill(slm_decider *d, const slm_model *model, const slm_decider_options *asked, slm_error *error) {
  const slm_session_options options = {.context = asked->context, .threads = asked->threads};
  slm_status status = slm_session_new(model, &options, &d->session, error);
  if (status)
    return status;
  d->memory_bytes = lay_out(d);
  d->memory = slm_take_memory(d->memory_bytes);
  if (!d->memory)
    return slm_fail(error, SLM_NO_MEMORY, "no memory for a decider of %llu bytes", (unsigned long long)d->memory_bytes);
  lay_out(d);
  if (!asked->prefix)
    return SLM_OK;
  const struct prompt *prompt = &d->task->prompt;
  status = slm_prefix_read(d->session, asked->prefix, prompt->known_ids, prompt->known, error);
  if (!status)
    memcpy(d->held, prompt->known_ids, prompt->known * sizeof *d->held);
  return status;
}

slm_status slm_decider_new(const slm_model *model, const slm_task *task, const slm_decider_options *options,
                           slm_decider **decider, slm_error *error) {
  if (error)
    *error = (slm_error){SLM_OK, ""};
  if (decider)
    *decider = NULL;
  if (!model || !task || !decider)
    return slm_fail(error, SLM_BAD_ARGUMENT, "slm_decider_new needs a model, a task and a place for the decider");
  const slm_decider_options none = {0}, *asked = options ? options : &none;
  slm_status status = check_options(model, task, asked, error);
  if (status)
    return status;
  slm_decider *made = calloc(1, sizeof *made);
  if (!made)
    return slm_fail(error, SLM_NO_MEMORY, "no memory for a decider");
  made->task = task;
  made->abstain_below = asked->abstain_below;
  status = fill(made, model, asked, error);
  if (status) {
    slm_decider_free(made);
    return status;
  }
  *decider = made;
  return SLM_OK;
}

void slm_decider_free(slm_decider *decider) {
  if (!decider)
    return;
  slm_session_free(decider->session);
  slm_encoder_clear(&decider->encoder);
  buffer_free(&decider->text);
  buffer_free(&decider->prefix);
  slm_writing_clear(&decider->answer);
  if (decider->memory)
    munmap(decider->memory, decider->memory_bytes);
  free(decider);
}

const char *slm_decider_error_text(const slm_decider *decider) { return slm_error_text(decider->session); }

void slm_decider_cancel(slm_decider *decider) { slm_cancel(decider->session); }

void slm_head_rows(const slm_decider *decider, size_t *kept, size_t *all) {
  *kept = (size_t)decider->head.rows;
  *all = (size_t)decider->session->model->weights.head.rows;
}

/* ---- The prompt ----------------------------------------------------------------------------------------------- */

static const int32_t *prompt_ids(const slm_decider *d) { return (const int32_t *)(const void *)d->encoder.ids.bytes; }

static size_t id_count(const slm_decider *d) { return d->encoder.ids.size / sizeof(int32_t); }

slm_status slm_decider_encode(slm_decider *d, const slm_text *fields, size_t count) {
  const slm_status status = slm_prompt_read(d->task, fields, count, &d->encoder, &d->text, &d->session->error);
  if (!status)
    d->prompt_tokens = id_count(d);
  return status;
}

slm_status slm_decider_read(slm_decider *d, size_t after, int32_t *read) {
  slm_session *session = d->session;
  d->answer.begun = 0;
  const int32_t *ids = prompt_ids(d);
  const size_t count = id_count(d);
  if (count + after > (size_t)session->context)
    return slm_fail(&session->error, SLM_CONTEXT_FULL, "a prompt of %llu tokens, and %llu for the answer, in a context of "
                    "%lld", (unsigned long long)count, (unsigned long long)after, (long long)session->context);
  size_t same = 0;
  /* The last token is read in any case: what comes after it is asked for. */
  while (same < (size_t)session->position && same + 1 < count && d->held[same] == ids[same])
    same++;
  slm_rewind(session, same);
  const slm_status status = slm_session_read(session, ids + same, count - same);
  if (status)
    return status;
  memcpy(d->held + same, ids + same, (count - same) * sizeof *ids);
  *read = (int32_t)(count - same);
  return SLM_OK;
}

const int32_t *slm_prompt_ids(const slm_decider *decider, size_t *count) {
  *count = decider->prompt_tokens;
  return prompt_ids(decider);
}

/* ---- Labels --------------------------------------------------------------------------------------------------- */

/* The tokens of a wanted node, after those of its parent. */
static void add_node(slm_decider *d, uint32_t node) {
  const struct choices *choices = &d->task->choices;
  const struct branch *branch = &choices->branches[node];
  int32_t parent = d->last[branch->parent];
  for (uint32_t i = 0; i < branch->count; i++, parent = (int32_t)d->used++) {
    d->ids[d->used] = (int32_t)choices->ids[branch->begin + i];
    d->branches.parents[d->used] = parent;
  }
  d->last[node] = parent;
}

/* Look at the nodes that the search wants, together as far as they fit; how many is left in `wanted_count`. */
static slm_status look(slm_decider *d, slm_decision *decision) {
  const int64_t first = d->used;
  int64_t rows[CHUNK];
  uint32_t taken = 0;
  while (taken < d->search.wanted_count) {
    const uint32_t node = d->search.waiting[taken].node;
    if (d->used - first + d->task->choices.branches[node].count > CHUNK)
      break;
    add_node(d, node);
    rows[taken++] = d->used - 1 - first;
  }
  d->search.wanted_count = taken;
  const slm_status status =
      slm_forward_branches(d->session, &d->branches, d->ids + first, first, d->used - first, rows, taken);
  if (status)
    return refuse(d, status, "cancelled");
  slm_forward_head(d->session, &d->head, taken, d->logits);
  decision->decode_tokens += (int32_t)(d->used - first);
  decision->decode_steps++;
  return SLM_OK;
}

static slm_status search(slm_decider *d, slm_decision *decision) {
  slm_search_begin(&d->search);
  d->used = 0;
  d->last[0] = -1;
  slm_forward_head(d->session, &d->head, 1, d->logits);
  while (slm_search_give(&d->search, d->logits, (size_t)d->head.rows, CHUNK)) {
    if (!d->search.wanted_count)
      return SLM_OK;
    const slm_status status = look(d, decision);
    if (status)
      return status;
  }
  return refuse(d, SLM_BAD_NUMBERS, "the model answered with values that are no numbers");
}

static slm_status classify(slm_decider *d, const slm_text *fields, size_t count, slm_decision *decision) {
  const struct branch *root = d->task->choices.branches;
  const uint64_t begun = slm_now();
  slm_status status = slm_decider_encode(d, fields, count);
  if (status)
    return status;
  if (!buffer_append(&d->encoder.ids, d->task->choices.ids + root->begin, root->count * sizeof(int32_t)))
    return refuse(d, SLM_NO_MEMORY, "no memory for the prompt");
  const uint64_t encoded = slm_now();
  status = slm_decider_read(d, d->task->choices.deepest - root->count, &decision->prefill_tokens);
  if (status)
    return status;
  const uint64_t read = slm_now();
  status = search(d, decision);
  decision->prompt_tokens = (int32_t)d->prompt_tokens;
  decision->encode_nanoseconds = encoded - begun;
  decision->prefill_nanoseconds = read - encoded;
  decision->decode_nanoseconds = slm_now() - read;
  return status;
}

slm_status slm_classify(slm_decider *decider, const slm_text *fields, size_t count, slm_decision *decision) {
  if (!decision || (!fields && count))
    return refuse(decider, SLM_BAD_ARGUMENT, "slm_classify needs fields and a place for the decision");
  if (!decider->task->choices.count)
    return refuse(decider, SLM_BAD_ARGUMENT, "the task has no labels");
  *decision = (slm_decision){.choice = -1};
  const slm_status status = classify(decider, fields, count, decision);
  if (status)
    return status;
  const slm_decision found = slm_search_decision(&decider->search);
  decision->choice = found.choice;
  decision->probability = found.probability;
  decision->unexplored = found.unexplored;
  decision->abstained = decision->probability < decider->abstain_below;
  return SLM_OK;
}

double slm_choice_logprob(const slm_decider *decider, int32_t choice) {
  return choice >= 0 && (uint32_t)choice < decider->task->choices.count ? decider->search.logprobs[choice] : NAN;
}

/* ---- The canary ----------------------------------------------------------------------------------------------- */

/* Kernels give the same bits on every CPU, libm's exp and log may not. Exact kernels, which a CPU without dot products of
 * 8 bits takes for any file, tell other numbers for one that was made with such products. */
static double canary_tolerance(const slm_model *model) {
  return model->kernels->exact && model->weights.config.activations == ACTIVATIONS_INT8 ? 0.1 : 1e-5;
}

static void compare(const slm_decider *d, uint32_t item, const slm_decision *decision, slm_check *check) {
  const struct golden_item *wanted = &d->task->golden.items[item];
  if (!slm_golden_same_ids(&d->task->golden, item, prompt_ids(d), d->prompt_tokens, check) || wanted->label == NONE)
    return;
  const double logprob = slm_choice_logprob(d, (int32_t)wanted->label);
  const double now = isnan(logprob) ? 0 : exp(logprob), tolerance = canary_tolerance(d->session->model);
  if (fabs(now - (double)wanted->probability) < tolerance)
    return;
  const slm_text name = slm_golden_name(&d->task->golden, item);
  check->failed = (int32_t)item;
  snprintf(check->text, sizeof check->text,
           "item %.*s: the model says label %u at %.5f, not %.5f as where it was built; its first is label %d",
           (int)(name.size < 64 ? name.size : 64), name.bytes, wanted->label, now, (double)wanted->probability,
           (int)decision->choice);
}

slm_status slm_self_test(slm_decider *decider, slm_check *check) {
  if (!check)
    return refuse(decider, SLM_BAD_ARGUMENT, "slm_self_test needs a place for what it finds");
  const struct golden *golden = &decider->task->golden;
  if (!decider->task->choices.count)
    return slm_check_prompts(decider->task, check);
  slm_text fields[MOST_FIELDS];
  *check = (slm_check){(int32_t)golden->count, -1, ""};
  for (uint32_t i = 0; i < golden->count && check->failed < 0; i++) {
    slm_decision decision;
    slm_golden_fields(golden, i, fields);
    const slm_status status = slm_classify(decider, fields, golden->fields, &decision);
    if (status)
      return status;
    compare(decider, i, &decision, check);
  }
  return SLM_OK;
}

/* ---- The prompt's beginning ----------------------------------------------------------------------------------- */

slm_status slm_prefix_make(slm_decider *decider, const void **bytes, size_t *size) {
  const struct prompt *prompt = &decider->task->prompt;
  if (!bytes || !size || !prompt->known)
    return refuse(decider, SLM_BAD_ARGUMENT, "prompts that begin with nothing in common, or no place for the bytes");
  decider->encoder.ids.size = 0;
  int32_t read;
  if (!buffer_append(&decider->encoder.ids, prompt->known_ids, prompt->known * sizeof(int32_t)))
    return refuse(decider, SLM_NO_MEMORY, "no memory for the prompt's beginning");
  const slm_status status = slm_decider_read(decider, 0, &read);
  if (status)
    return status;
  decider->prefix.size = 0;
  *size = slm_prefix_size(decider->session, prompt->known);
  if (!buffer_reserve(&decider->prefix, *size))
    return refuse(decider, SLM_NO_MEMORY, "no memory for the prompt's beginning");
  slm_prefix_write(decider->session, prompt->known_ids, prompt->known, decider->prefix.bytes);
  *bytes = decider->prefix.bytes;
  return SLM_OK;
}
