/* slm_text.h: encoding and spelling for callers. */
#include "error.h"
#include "spell.h"
#include "task.h"
#include "utf8.h"

struct slm_encoder {
  const slm_task *task;
  struct encoder encoder;
};

struct slm_speller {
  struct spelling spelling;
};

static slm_text string_of(const struct strings *strings, size_t first, size_t count, size_t index) {
  size_t size = 0;
  const uint8_t *bytes = index < count ? string_at(strings, (uint32_t)(first + index), &size) : NULL;
  return (slm_text){(const char *)bytes, size};
}

size_t slm_field_count(const slm_task *task) { return task->prompt.fields; }

slm_text slm_field_name(const slm_task *task, size_t index) {
  const struct prompt *prompt = &task->prompt;
  return string_of(&prompt->strings, prompt->strings.count - prompt->fields, prompt->fields, index);
}

size_t slm_label_count(const slm_task *task) { return task->choices.count; }

slm_text slm_label(const slm_task *task, size_t index) {
  return string_of(&task->choices.labels, 0, task->choices.count, index);
}

/* A place for `made`, and memory of `size` bytes; NULL with an error. */
static void *take(const slm_task *task, void *place, size_t size, slm_error *error) {
  if (error)
    *error = (slm_error){SLM_OK, ""};
  if (!task || !place) {
    slm_fail(error, SLM_BAD_ARGUMENT, "a task is needed, and a place for what is made");
    return NULL;
  }
  void *made = calloc(1, size);
  if (!made)
    slm_fail(error, SLM_NO_MEMORY, "no memory for an encoder or speller");
  return made;
}

static slm_status status_of(const void *made, const slm_task *task, const void *place) {
  return made ? SLM_OK : task && place ? SLM_NO_MEMORY : SLM_BAD_ARGUMENT;
}

slm_status slm_encoder_new(const slm_task *task, slm_encoder **encoder, slm_error *error) {
  slm_encoder *made = take(task, encoder, sizeof *made, error);
  if (made)
    made->task = task;
  if (encoder)
    *encoder = made;
  return status_of(made, task, encoder);
}

void slm_encoder_free(slm_encoder *encoder) {
  if (!encoder)
    return;
  slm_encoder_clear(&encoder->encoder);
  free(encoder);
}

static int push_ids(struct encoder *encoder, const uint32_t *ids, uint32_t count) {
  return buffer_append(&encoder->ids, ids, count * sizeof *ids);
}

/* Ids of valid UTF-8, anew. */
static int encode(const struct tokenizer *tokenizer, struct encoder *encoder, const uint8_t *text, size_t size,
                  int special) {
  encoder->ids.size = 0;
  return (!special || push_ids(encoder, tokenizer->before, tokenizer->before_count)) &&
         slm_encode_text(tokenizer, encoder, text, size, 1) &&
         (!special || push_ids(encoder, tokenizer->after, tokenizer->after_count));
}

int slm_prompt_encode(const slm_task *task, struct encoder *encoder, const uint8_t *text, size_t size) {
  return encode(&task->tokenizer, encoder, text, size, (task->prompt.flags & PROMPT_SPECIAL) != 0);
}

slm_status slm_prompt_read(const slm_task *task, const slm_text *fields, size_t count, struct encoder *encoder,
                           struct buffer *text, slm_error *error) {
  const slm_status status = slm_prompt_render(&task->prompt, fields, count, text);
  if (status == SLM_BAD_TEXT)
    return slm_fail(error, status, "a field is not UTF-8");
  if (status == SLM_BAD_ARGUMENT)
    return slm_fail(error, status, "%llu fields, or one without bytes: the prompt has %u", (unsigned long long)count,
                    task->prompt.fields);
  if (status || !slm_prompt_encode(task, encoder, text->bytes, text->size))
    return slm_fail(error, SLM_NO_MEMORY, "no memory for the prompt");
  return encoder->ids.size ? SLM_OK : slm_fail(error, SLM_BAD_ARGUMENT, "a prompt without tokens");
}

slm_status slm_encode(slm_encoder *encoder, slm_text text, int special, const int32_t **ids, size_t *count) {
  if (!encoder || !ids || !count || (!text.bytes && text.size))
    return SLM_BAD_ARGUMENT;
  const uint8_t *bytes = (const uint8_t *)text.bytes;
  if (!utf8_valid(bytes, text.size))
    return SLM_BAD_TEXT;
  struct encoder *e = &encoder->encoder;
  if (!encode(&encoder->task->tokenizer, e, bytes, text.size, special))
    return SLM_NO_MEMORY;
  *ids = (const int32_t *)(const void *)e->ids.bytes;
  *count = e->ids.size / sizeof **ids;
  return SLM_OK;
}

slm_status slm_speller_new(const slm_task *task, slm_speller **speller, slm_error *error) {
  slm_speller *made = take(task, speller, sizeof *made, error);
  if (made)
    made->spelling.tokenizer = &task->tokenizer;
  if (speller)
    *speller = made;
  return status_of(made, task, speller);
}

void slm_speller_free(slm_speller *speller) {
  if (!speller)
    return;
  slm_spelling_clear(&speller->spelling);
  free(speller);
}

static slm_status told(const slm_speller *speller, int written, slm_text *text) {
  const struct buffer *out = &speller->spelling.out;
  *text = (slm_text){(const char *)out->bytes, written ? out->size : 0};
  return written ? SLM_OK : SLM_NO_MEMORY;
}

slm_status slm_spell(slm_speller *speller, int32_t id, slm_text *text) {
  if (!speller || !text)
    return SLM_BAD_ARGUMENT;
  return told(speller, slm_spell_id(&speller->spelling, id), text);
}

slm_status slm_spell_end(slm_speller *speller, slm_text *text) {
  if (!speller || !text)
    return SLM_BAD_ARGUMENT;
  return told(speller, slm_spell_rest(&speller->spelling), text);
}
