/* Decisions of slm.h for Java: the native methods of org.slmc.SlmDecider, see java/org/slmc/SlmDecider.java. */
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
