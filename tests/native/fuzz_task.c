/* Any bytes as a task file: refused with a text, or used for all that a task is for. See fuzz.h. Their digest is made
 * good first: what lies behind it is to be tried. */
#include <string.h>

#include "fuzz.h"
#include "sha256.h"
#include "task.h"
#include "utf8.h"

enum { HEADER = 64, DIGEST = 32, MOST_LOGITS = 1 << 16, CONTEXT = 1 << 12 };

static const char *const TEXTS[] = {
    "", " ", "transfer 200 dollars to my sister's account", "<|user|>\n  I'LL wait <|end|> \n\n\n", "e\xcc\x81\xcc\xa7 \xe0\xa4\xb9\xe0\xa4\xbf",
    "\xea\xb0\x80\xe1\x86\xa8\xef\xac\x81\xf0\x9f\x98\x80\xc5\xbf\xe2\x84\xaa", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
};

static slm_text text_of(const char *text) { return (slm_text){text, strlen(text)}; }

static void encode(const slm_task *task) {
  slm_encoder *encoder;
  CHECK(slm_encoder_new(task, &encoder, NULL) == SLM_OK);
  for (size_t i = 0; i < sizeof TEXTS / sizeof *TEXTS; i++) {
    const int32_t *ids;
    size_t count;
    const slm_status status = slm_encode(encoder, text_of(TEXTS[i]), 1, &ids, &count);
    CHECK(status == SLM_OK || status == SLM_NO_MEMORY); /* a text may be made to grow without end */
    for (size_t j = 0; status == SLM_OK && j < count; j++)
      CHECK(ids[j] >= 0 && (uint32_t)ids[j] < task->tokenizer.count);
  }
  slm_encoder_free(encoder);
}

static void spell(const slm_task *task) {
  slm_speller *speller;
  slm_text text;
  CHECK(slm_speller_new(task, &speller, NULL) == SLM_OK);
  for (int32_t id = -1; id <= (int32_t)task->tokenizer.count; id++) {
    CHECK(slm_spell(speller, id, &text) == SLM_OK && utf8_valid((const uint8_t *)text.bytes, text.size));
    if (id % 5 == 0)
      CHECK(slm_spell_end(speller, &text) == SLM_OK && utf8_valid((const uint8_t *)text.bytes, text.size));
  }
  slm_speller_free(speller);
}

static float *logits_of(uint32_t step) {
  static float logits[MOST_LOGITS];
  for (size_t i = 0; i < MOST_LOGITS; i++)
    logits[i] = (float)(i * step % 97) / 50;
  return logits;
}

static void choose(const slm_task *task) {
  slm_chooser *chooser;
  slm_check check;
  slm_text fields[MOST_FIELDS];
  for (size_t i = 0; i < MOST_FIELDS; i++)
    fields[i] = text_of(TEXTS[2]);
  for (size_t i = 0; i < slm_field_count(task) + 2; i++)
    slm_field_name(task, i);
  for (size_t i = 0; i < slm_label_count(task) + 2; i++)
    slm_label(task, i);
  CHECK(slm_check_prompts(task, &check) != SLM_BAD_ARGUMENT);
  if (!task->choices.count || task->tokenizer.count > MOST_LOGITS)
    return;
  const int32_t *ids;
  size_t count;
  slm_decision decision;
  CHECK(slm_chooser_new(task, &chooser, NULL) == SLM_OK);
  slm_status status = slm_chooser_begin(chooser, fields, slm_field_count(task), &ids, &count);
  for (uint32_t step = 1; status == SLM_OK && count; step++)
    status = slm_chooser_give(chooser, logits_of(step), MOST_LOGITS, &ids, &count);
  if (status == SLM_OK)
    CHECK(slm_chooser_decision(chooser, &decision) == SLM_OK && decision.choice >= 0);
  slm_chooser_free(chooser);
}

static void write_answer(slm_writer *writer, const slm_task *task, const slm_sampling *sampling) {
  const int32_t *ids;
  size_t count;
  slm_text fields[MOST_FIELDS], text;
  int32_t id, done = SLM_MORE;
  for (size_t i = 0; i < MOST_FIELDS; i++)
    fields[i] = text_of(TEXTS[4]);
  slm_status status = slm_writer_begin(writer, fields, slm_field_count(task), sampling, CONTEXT, &ids, &count);
  for (uint32_t step = 1; status == SLM_OK && done == SLM_MORE; step++) {
    status = slm_writer_give(writer, logits_of(step), task->tokenizer.count + step % 3, &id, &text, &done);
    if (status == SLM_OK)
      CHECK((done == SLM_ENDED ? id == -1 : id >= 0) && utf8_valid((const uint8_t *)text.bytes, text.size));
  }
  CHECK(status == SLM_OK || slm_writer_error_text(writer)[0]);
  CHECK(slm_writer_give(writer, logits_of(1), MOST_LOGITS, &id, &text, &done) == SLM_BAD_ARGUMENT);
}

static void write_answers(const slm_task *task) {
  const slm_text stop = text_of("\n\n");
  const slm_sampling greedy = {.max_tokens = 20}, drawn = {1.5f, 0.9f, 50, 40, 7, &stop, 1};
  slm_writer *writer;
  CHECK(slm_writer_new(task, &writer, NULL) == (task->prompt.strings.count ? SLM_OK : SLM_BAD_FILE));
  if (writer && task->tokenizer.count < MOST_LOGITS - 2) {
    write_answer(writer, task, &greedy);
    write_answer(writer, task, &drawn);
  }
  slm_writer_free(writer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  void *bytes; /* which begin as a mapped file does, and end where the file does */
  CHECK(!posix_memalign(&bytes, 64, size + !size));
  if (size)
    memcpy(bytes, data, size);
  if (size >= HEADER)
    slm_sha256((uint8_t *)bytes + HEADER, size - HEADER, (uint8_t *)bytes + DIGEST);
  slm_task task = {.file = {bytes, size}};
  error = (slm_error){SLM_OK, ""};
  const slm_status status = slm_task_read(&task, &error);
  CHECK(status == error.status && (status == SLM_OK || (status == SLM_BAD_FILE && error.text[0])));
  if (status == SLM_OK) {
    encode(&task);
    spell(&task);
    choose(&task);
    write_answers(&task);
  }
  free(bytes);
  return 0;
}
