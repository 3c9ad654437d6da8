/* slm_text.h: the search one path at a time, and the canary's prompts. */
#include <math.h>

#include "error.h"
#include "task.h"

struct slm_chooser {
  const slm_task *task;
  struct encoder encoder; /* ids: the prompt, and what all labels begin with */
  struct buffer text;
  struct search search;
  uint64_t *memory; /* of the search */
  int32_t *path;    /* [deepest] */
  float *logits;    /* [places] */
  int begun;
};

slm_status slm_chooser_new(const slm_task *task, slm_chooser **chooser, slm_error *error) {
  if (error)
    *error = (slm_error){SLM_OK, ""};
  if (chooser)
    *chooser = NULL;
  if (!task || !chooser)
    return slm_fail(error, SLM_BAD_ARGUMENT, "slm_chooser_new needs a task and a place for the chooser");
  if (!task->choices.count)
    return slm_fail(error, SLM_BAD_ARGUMENT, "the task has no labels");
  slm_chooser *made = calloc(1, sizeof *made);
  if (made) {
    made->task = task;
    made->memory = malloc(slm_search_bytes(&task->choices));
    made->path = calloc(task->choices.deepest + 1, sizeof *made->path);
    made->logits = calloc(task->choices.places, sizeof *made->logits);
  }
  if (!made || !made->memory || !made->path || !made->logits) {
    slm_chooser_free(made);
    return slm_fail(error, SLM_NO_MEMORY, "no memory for a chooser");
  }
  slm_search_place(&task->choices, made->memory, &made->search);
  *chooser = made;
  return SLM_OK;
}

void slm_chooser_free(slm_chooser *chooser) {
  if (!chooser)
    return;
  slm_encoder_clear(&chooser->encoder);
  buffer_free(&chooser->text);
  free(chooser->memory);
  free(chooser->path);
  free(chooser->logits);
  free(chooser);
}

slm_status slm_chooser_begin(slm_chooser *chooser, const slm_text *fields, size_t count, const int32_t **ids,
                             size_t *id_count) {
  if (!chooser || (!fields && count) || !ids || !id_count)
    return SLM_BAD_ARGUMENT;
  const struct choices *choices = &chooser->task->choices;
  const struct branch *root = choices->branches;
  struct encoder *encoder = &chooser->encoder;
  chooser->begun = 0;
  const slm_status status = slm_prompt_render(&chooser->task->prompt, fields, count, &chooser->text);
  if (status)
    return status;
  if (!slm_prompt_encode(chooser->task, encoder, chooser->text.bytes, chooser->text.size) ||
      !buffer_append(&encoder->ids, choices->ids + root->begin, root->count * sizeof *choices->ids))
    return SLM_NO_MEMORY;
  slm_search_begin(&chooser->search);
  chooser->begun = 1;
  *ids = (const int32_t *)(const void *)encoder->ids.bytes;
  *id_count = encoder->ids.size / sizeof **ids;
  return SLM_OK;
}

/* The ids from the prompt's end to a node, but for those of node 0; how many. */
static size_t find_path(const struct choices *choices, uint32_t node, int32_t *path) {
  size_t count = 0;
  for (uint32_t at = node; at; at = choices->branches[at].parent)
    count += choices->branches[at].count;
  size_t end = count;
  for (uint32_t at = node; at; at = choices->branches[at].parent) {
    const struct branch *branch = &choices->branches[at];
    end -= branch->count;
    memcpy(path + end, choices->ids + branch->begin, branch->count * sizeof *path);
  }
  return count;
}

slm_status slm_chooser_give(slm_chooser *chooser, const float *logits, size_t vocab_size, const int32_t **path,
                            size_t *path_count) {
  if (!chooser || !chooser->begun || !chooser->search.wanted_count || !logits || !path || !path_count ||
      vocab_size < chooser->task->tokenizer.count)
    return SLM_BAD_ARGUMENT;
  const struct choices *choices = &chooser->task->choices;
  for (uint32_t i = 0; i < choices->places; i++)
    chooser->logits[i] = logits[choices->rows[i]];
  if (!slm_search_give(&chooser->search, chooser->logits, 0, 1))
    return SLM_BAD_NUMBERS;
  *path = chooser->path;
  *path_count = chooser->search.wanted_count
                    ? find_path(choices, chooser->search.waiting[0].node, chooser->path)
                    : 0;
  return SLM_OK;
}

slm_status slm_chooser_decision(const slm_chooser *chooser, slm_decision *decision) {
  if (!chooser || !chooser->begun || chooser->search.wanted_count || !decision)
    return SLM_BAD_ARGUMENT;
  *decision = slm_search_decision(&chooser->search);
  decision->prompt_tokens =
      (int32_t)(chooser->encoder.ids.size / sizeof(int32_t) - chooser->task->choices.branches->count);
  return SLM_OK;
}

double slm_chooser_logprob(const slm_chooser *chooser, int32_t choice) {
  return choice >= 0 && (uint32_t)choice < chooser->task->choices.count ? chooser->search.logprobs[choice] : NAN;
}

slm_status slm_check_prompts(const slm_task *task, slm_check *check) {
  if (!task || !check)
    return SLM_BAD_ARGUMENT;
  const struct golden *golden = &task->golden;
  struct encoder encoder = {0};
  struct buffer text = {0};
  slm_text fields[MOST_FIELDS];
  slm_status status = SLM_OK;
  *check = (slm_check){(int32_t)golden->count, -1, ""};
  for (uint32_t i = 0; i < golden->count && check->failed < 0 && status == SLM_OK; i++) {
    slm_golden_fields(golden, i, fields);
    status = slm_prompt_render(&task->prompt, fields, golden->fields, &text);
    if (status == SLM_OK && !slm_prompt_encode(task, &encoder, text.bytes, text.size))
      status = SLM_NO_MEMORY;
    if (status == SLM_OK)
      slm_golden_same_ids(golden, i, (const int32_t *)(const void *)encoder.ids.bytes,
                          encoder.ids.size / sizeof(int32_t), check);
  }
  slm_encoder_clear(&encoder);
  buffer_free(&text);
  return status;
}
