/* Decisions and answers of slm.h for Java: the native methods of org.slmc.SlmDecider, see java/org/slmc/SlmDecider.java. */
#include "jni_support.h"

#define JAVA(type, name) SLM_API type Java_org_slmc_SlmDecider_##name
#define DECIDER(handle) ((slm_decider *)(intptr_t)(handle))

static int done(JNIEnv *env, const slm_decider *decider, slm_status status) {
  if (status)
    fail(env, status, slm_decider_error_text(decider));
  return status == SLM_OK;
}

JAVA(jlong, open)(CALLER, jlong model, jlong task, jint context, jint threads, jstring prefix, jfloat abstain_below) {
  if (!given(env, model && task))
    return 0;
  char *file = prefix ? utf8(env, prefix) : NULL;
  slm_decider *decider = NULL;
  if (taken(env, file || !prefix)) {
    const slm_decider_options options = {context, threads, file, abstain_below};
    slm_error error;
    if (slm_decider_new((slm_model *)(intptr_t)model, (slm_task *)(intptr_t)task, &options, &decider, &error))
      fail(env, error.status, error.text);
  }
  free(file);
  return (intptr_t)decider;
}

JAVA(void, close)(CALLER, jlong decider) {
  (void)env;
  slm_decider_free(DECIDER(decider));
}

JAVA(void, cancel)(CALLER, jlong decider) {
  if (given(env, decider != 0))
    slm_decider_cancel(DECIDER(decider));
}

JAVA(jdoubleArray, decide)(CALLER, jlong decider, jobjectArray fields) {
  if (!given(env, decider && fields))
    return NULL;
  struct texts texts = {0};
  jdoubleArray result = NULL;
  slm_decision decision;
  if (take_texts(env, fields, &texts) &&
      done(env, DECIDER(decider), slm_classify(DECIDER(decider), texts.each, texts.count, &decision)))
    result = new_decision(env, &decision);
  free_texts(&texts);
  return result;
}

JAVA(jintArray, promptIds)(CALLER, jlong decider) {
  size_t count;
  if (!given(env, decider != 0))
    return NULL;
  const int32_t *ids = slm_prompt_ids(DECIDER(decider), &count);
  return new_ids(env, ids, count);
}

JAVA(jdouble, logprob)(CALLER, jlong decider, jint choice) {
  return given(env, decider != 0) ? slm_choice_logprob(DECIDER(decider), choice) : 0;
}

JAVA(jbyteArray, test)(CALLER, jlong decider) {
  slm_check check;
  if (!given(env, decider != 0) || !done(env, DECIDER(decider), slm_self_test(DECIDER(decider), &check)))
    return NULL;
  return new_check(env, &check);
}

/* ---- Answers in text ------------------------------------------------------------------------------------------ */

JAVA(void, begin)(CALLER, jlong decider, jobjectArray fields, SAMPLING) {
  if (!given(env, decider && fields && stops))
    return;
  struct asked asked = {.sampling = SAMPLING_NUMBERS};
  if (take_asked(env, fields, stops, &asked))
    done(env, DECIDER(decider),
         slm_answer_begin(DECIDER(decider), asked.fields.each, asked.fields.count, &asked.sampling));
  free_asked(&asked);
}

JAVA(jbyteArray, next)(CALLER, jlong decider) {
  slm_text text;
  int32_t ended;
  size_t before, count;
  if (!given(env, decider != 0))
    return NULL;
  slm_answer_ids(DECIDER(decider), &before);
  if (!done(env, DECIDER(decider), slm_answer_next(DECIDER(decider), &text, &ended)))
    return NULL;
  const int32_t *ids = slm_answer_ids(DECIDER(decider), &count);
  return new_piece(env, count > before ? ids[before] : -1, text, ended);
}

JAVA(jintArray, answerIds)(CALLER, jlong decider) {
  size_t count;
  if (!given(env, decider != 0))
    return NULL;
  const int32_t *ids = slm_answer_ids(DECIDER(decider), &count);
  return new_ids(env, ids, count);
}

JAVA(jdoubleArray, answerLogprobs)(CALLER, jlong decider) {
  size_t count;
  if (!given(env, decider != 0))
    return NULL;
  const double *logprobs = slm_answer_logprobs(DECIDER(decider), &count);
  return new_doubles(env, logprobs, count);
}
