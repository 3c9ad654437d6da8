/* slm_text.h: answers in text, by logits that are given. */
#include "error.h"
#include "writing.h"

struct slm_writer {
  const slm_task *task;
  struct encoder encoder; /* ids: the prompt */
  struct buffer text;     /* of the prompt */
  struct writing writing;
  slm_error error;
};

slm_status slm_writer_new(const slm_task *task, slm_writer **writer, slm_error *error) {
  if (error)
    *error = (slm_error){SLM_OK, ""};
  if (writer)
    *writer = NULL;
  if (!task || !writer)
    return slm_fail(error, SLM_BAD_ARGUMENT, "slm_writer_new needs a task and a place for the writer");
  if (!task->prompt.strings.count)
    return slm_fail(error, SLM_BAD_FILE, "the task file has a tokenizer, but no prompt");
  slm_writer *made = calloc(1, sizeof *made);
  if (!made)
    return slm_fail(error, SLM_NO_MEMORY, "no memory for a writer");
  made->task = task;
  *writer = made;
  return SLM_OK;
}

void slm_writer_free(slm_writer *writer) {
  if (!writer)
    return;
  slm_encoder_clear(&writer->encoder);
  buffer_free(&writer->text);
  slm_writing_clear(&writer->writing);
  free(writer);
}

const char *slm_writer_error_text(const slm_writer *writer) { return writer->error.text; }

/* The ids of the prompt, and how many tokens there is room for after it. */
static slm_status read_prompt(slm_writer *w, const slm_text *fields, size_t count, size_t context, size_t *room) {
  const slm_status status = slm_prompt_read(w->task, fields, count, &w->encoder, &w->text, &w->error);
  if (status)
    return status;
  const size_t prompt = w->encoder.ids.size / sizeof(int32_t);
  if (prompt > context)
    return slm_fail(&w->error, SLM_CONTEXT_FULL, "a prompt of %llu tokens in a context of %llu",
                    (unsigned long long)prompt, (unsigned long long)context);
  *room = context - prompt + 1; /* the last token need not be read */
  return SLM_OK;
}

slm_status slm_writer_begin(slm_writer *writer, const slm_text *fields, size_t count, const slm_sampling *sampling,
                            size_t context, const int32_t **ids, size_t *id_count) {
  if (!writer)
    return SLM_BAD_ARGUMENT;
  slm_error *error = &writer->error;
  size_t room = 0;
  writer->writing.begun = 0;
  if ((!fields && count) || !ids || !id_count)
    return slm_fail(error, SLM_BAD_ARGUMENT, "slm_writer_begin needs fields, and places for the prompt's ids");
  slm_status status = slm_writing_ask(&writer->writing, sampling, error);
  if (!status)
    status = read_prompt(writer, fields, count, context, &room);
  if (!status)
    status = slm_writing_begin(&writer->writing, writer->task, room, writer->task->tokenizer.count, error);
  if (status)
    return status;
  *ids = (const int32_t *)(const void *)writer->encoder.ids.bytes;
  *id_count = writer->encoder.ids.size / sizeof **ids;
  return SLM_OK;
}

static slm_status check_given(slm_writer *w, const float *logits, size_t vocab_size) {
  const uint32_t tokens = w->task->tokenizer.count;
  if (!w->writing.begun || w->writing.done != SLM_MORE)
    return slm_fail(&w->error, SLM_BAD_ARGUMENT, "no logits are wanted: no answer was begun, or it is done or failed");
  if (!logits)
    return slm_fail(&w->error, SLM_BAD_ARGUMENT, "slm_writer_give needs logits, and places for what it says");
  if (vocab_size < tokens || vocab_size > INT32_MAX)
    return slm_fail(&w->error, SLM_BAD_ARGUMENT, "%llu logits for a task of %u tokens", (unsigned long long)vocab_size,
                    tokens);
  return SLM_OK;
}

slm_status slm_writer_give(slm_writer *writer, const float *logits, size_t vocab_size, int32_t *id, slm_text *text,
                           int32_t *done) {
  if (!writer)
    return SLM_BAD_ARGUMENT;
  struct writing *writing = &writer->writing;
  slm_status status = check_given(writer, id && text && done ? logits : NULL, vocab_size);
  if (!status)
    status = slm_writing_take(writing, logits, vocab_size, &writer->error);
  if (status) {
    writing->begun = 0;
    return status;
  }
  size_t count;
  const int32_t *ids = slm_writing_ids(writing, &count);
  *id = writing->done == SLM_ENDED ? -1 : ids[count - 1];
  *text = slm_writing_text(writing);
  *done = (int32_t)writing->done;
  return SLM_OK;
}

const int32_t *slm_writer_ids(const slm_writer *writer, size_t *count) {
  return slm_writing_ids(&writer->writing, count);
}

const double *slm_writer_logprobs(const slm_writer *writer, size_t *count) {
  return slm_writing_logprobs(&writer->writing, count);
}
