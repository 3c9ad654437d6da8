/* slm_text.h for Java: the native methods of org.slmc.SlmText, see java/org/slmc/SlmText.java. */
#include "jni_support.h"

#define JAVA(type, name) SLM_API type Java_org_slmc_SlmText_##name
#define TASK(handle) ((slm_task *)(intptr_t)(handle))
#define ENCODER(handle) ((slm_encoder *)(intptr_t)(handle))
#define SPELLER(handle) ((slm_speller *)(intptr_t)(handle))
#define CHOOSER(handle) ((slm_chooser *)(intptr_t)(handle))
#define WRITER(handle) ((slm_writer *)(intptr_t)(handle))

static const char *reason(slm_status status) {
  switch (status) {
  case SLM_NO_MEMORY:
    return "no memory";
  case SLM_BAD_NUMBERS:
    return "the model answered with values that are no numbers";
  case SLM_BAD_TEXT:
    return "a text is not UTF-8";
  default:
    return "a call that can't be meant so: other fields than the task's, too few logits, a search not begun or not done";
  }
}

/* Most functions of slm_text.h tell their status alone. */
static int done(JNIEnv *env, slm_status status) {
  if (status)
    fail(env, status, reason(status));
  return status == SLM_OK;
}

static jlong handle_of(JNIEnv *env, const void *made, const slm_error *error) {
  if (!made)
    fail(env, error->status, error->text);
  return (intptr_t)made;
}

/* ---- A task --------------------------------------------------------------------------------------------------- */

JAVA(jlong, openTask)(CALLER, jstring path) {
  if (!given(env, path != NULL))
    return 0;
  char *file = utf8(env, path);
  slm_task *task = NULL;
  if (taken(env, file != NULL)) {
    slm_error error;
    if (slm_task_open(file, &task, &error))
      fail(env, error.status, error.text);
  }
  free(file);
  return (intptr_t)task;
}

JAVA(void, closeTask)(CALLER, jlong task) {
  (void)env;
  slm_task_close(TASK(task));
}

JAVA(jint, fieldCount)(CALLER, jlong task) { return given(env, task != 0) ? (jint)slm_field_count(TASK(task)) : 0; }

JAVA(jint, labelCount)(CALLER, jlong task) { return given(env, task != 0) ? (jint)slm_label_count(TASK(task)) : 0; }

/* A negative index is beyond the last. */
JAVA(jbyteArray, fieldName)(CALLER, jlong task, jint index) {
  return given(env, task != 0) ? new_text(env, slm_field_name(TASK(task), (size_t)index)) : NULL;
}

JAVA(jbyteArray, label)(CALLER, jlong task, jint index) {
  return given(env, task != 0) ? new_text(env, slm_label(TASK(task), (size_t)index)) : NULL;
}

JAVA(jbyteArray, checkPromptsOf)(CALLER, jlong task) {
  slm_check check;
  if (!given(env, task != 0) || !done(env, slm_check_prompts(TASK(task), &check)))
    return NULL;
  return new_check(env, &check);
}

/* ---- Text to tokens ------------------------------------------------------------------------------------------- */

JAVA(jlong, newEncoder)(CALLER, jlong task) {
  slm_encoder *encoder;
  slm_error error;
  slm_encoder_new(TASK(task), &encoder, &error);
  return handle_of(env, encoder, &error);
}

JAVA(void, freeEncoder)(CALLER, jlong encoder) {
  (void)env;
  slm_encoder_free(ENCODER(encoder));
}

JAVA(jintArray, encode)(CALLER, jlong encoder, jbyteArray text, jboolean special) {
  if (!given(env, encoder && text))
    return NULL;
  const jsize size = (*env)->GetArrayLength(env, text);
  jbyte *copy = malloc((size_t)size + 1);
  jintArray result = NULL;
  if (taken(env, copy != NULL)) {
    const int32_t *ids;
    size_t count;
    (*env)->GetByteArrayRegion(env, text, 0, size, copy);
    const slm_text bytes = {(const char *)copy, (size_t)size};
    if (done(env, slm_encode(ENCODER(encoder), bytes, special, &ids, &count)))
      result = new_ids(env, ids, count);
  }
  free(copy);
  return result;
}

/* ---- Tokens to text ------------------------------------------------------------------------------------------- */

JAVA(jlong, newSpeller)(CALLER, jlong task) {
  slm_speller *speller;
  slm_error error;
  slm_speller_new(TASK(task), &speller, &error);
  return handle_of(env, speller, &error);
}

JAVA(void, freeSpeller)(CALLER, jlong speller) {
  (void)env;
  slm_speller_free(SPELLER(speller));
}

JAVA(jbyteArray, spell)(CALLER, jlong speller, jint id) {
  slm_text text;
  return given(env, speller != 0) && done(env, slm_spell(SPELLER(speller), id, &text)) ? new_text(env, text) : NULL;
}

JAVA(jbyteArray, spellEnd)(CALLER, jlong speller) {
  slm_text text;
  return given(env, speller != 0) && done(env, slm_spell_end(SPELLER(speller), &text)) ? new_text(env, text) : NULL;
}

/* ---- Decisions ------------------------------------------------------------------------------------------------ */

JAVA(jlong, newChooser)(CALLER, jlong task) {
  slm_chooser *chooser;
  slm_error error;
  slm_chooser_new(TASK(task), &chooser, &error);
  return handle_of(env, chooser, &error);
}

JAVA(void, freeChooser)(CALLER, jlong chooser) {
  (void)env;
  slm_chooser_free(CHOOSER(chooser));
}

JAVA(jintArray, begin)(CALLER, jlong chooser, jobjectArray fields) {
  if (!given(env, chooser && fields))
    return NULL;
  struct texts texts = {0};
  jintArray result = NULL;
  const int32_t *ids;
  size_t count;
  if (take_texts(env, fields, &texts) &&
      done(env, slm_chooser_begin(CHOOSER(chooser), texts.each, texts.count, &ids, &count)))
    result = new_ids(env, ids, count);
  free_texts(&texts);
  return result;
}

JAVA(jintArray, give)(CALLER, jlong chooser, jfloatArray logits) {
  if (!given(env, chooser && logits))
    return NULL;
  const size_t size = (size_t)(*env)->GetArrayLength(env, logits);
  /* As long as a vocabulary, and only a few of them are looked at: no copy is made. */
  float *values = (*env)->GetPrimitiveArrayCritical(env, logits, NULL);
  if (!values)
    return NULL;
  const int32_t *path;
  size_t count;
  const slm_status status = slm_chooser_give(CHOOSER(chooser), values, size, &path, &count);
  (*env)->ReleasePrimitiveArrayCritical(env, logits, values, JNI_ABORT);
  return done(env, status) ? new_ids(env, path, count) : NULL;
}

JAVA(jdoubleArray, decisionOf)(CALLER, jlong chooser) {
  slm_decision decision;
  if (!given(env, chooser != 0) || !done(env, slm_chooser_decision(CHOOSER(chooser), &decision)))
    return NULL;
  return new_decision(env, &decision);
}

/* ---- Answers in text ------------------------------------------------------------------------------------------ */

/* A writer tells more than its status. */
static int written(JNIEnv *env, const slm_writer *writer, slm_status status) {
  if (status)
    fail(env, status, slm_writer_error_text(writer));
  return status == SLM_OK;
}

JAVA(jlong, newWriter)(CALLER, jlong task) {
  slm_writer *writer;
  slm_error error;
  slm_writer_new(TASK(task), &writer, &error);
  return handle_of(env, writer, &error);
}

JAVA(void, freeWriter)(CALLER, jlong writer) {
  (void)env;
  slm_writer_free(WRITER(writer));
}

/* A context below 0 has no room, as one of 0. */
JAVA(jintArray, beginWriter)(CALLER, jlong writer, jobjectArray fields, jint context, SAMPLING) {
  if (!given(env, writer && fields && stops))
    return NULL;
  struct asked asked = {.sampling = SAMPLING_NUMBERS};
  jintArray result = NULL;
  const int32_t *ids;
  size_t count;
  if (take_asked(env, fields, stops, &asked) &&
      written(env, WRITER(writer),
              slm_writer_begin(WRITER(writer), asked.fields.each, asked.fields.count, &asked.sampling,
                               context > 0 ? (size_t)context : 0, &ids, &count)))
    result = new_ids(env, ids, count);
  free_asked(&asked);
  return result;
}

JAVA(jbyteArray, giveWriter)(CALLER, jlong writer, jfloatArray logits) {
  if (!given(env, writer && logits))
    return NULL;
  const jsize size = (*env)->GetArrayLength(env, logits);
  jfloat *copy = malloc(((size_t)size + 1) * sizeof *copy);
  jbyteArray result = NULL;
  if (taken(env, copy != NULL)) {
    int32_t id, ended;
    slm_text text;
    (*env)->GetFloatArrayRegion(env, logits, 0, size, copy);
    if (written(env, WRITER(writer), slm_writer_give(WRITER(writer), copy, (size_t)size, &id, &text, &ended)))
      result = new_piece(env, id, text, ended);
  }
  free(copy);
  return result;
}

JAVA(jintArray, answerIds)(CALLER, jlong writer) {
  size_t count;
  if (!given(env, writer != 0))
    return NULL;
  const int32_t *ids = slm_writer_ids(WRITER(writer), &count);
  return new_ids(env, ids, count);
}

JAVA(jdoubleArray, answerLogprobs)(CALLER, jlong writer) {
  size_t count;
  if (!given(env, writer != 0))
    return NULL;
  const double *logprobs = slm_writer_logprobs(WRITER(writer), &count);
  return new_doubles(env, logprobs, count);
}
