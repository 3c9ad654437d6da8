/* slm.h for Java: the native methods of org.slmc.Slm, see java/org/slmc/Slm.java. */
#include "jni_support.h"
#include "session.h"

#define JAVA(type, name) SLM_API type Java_org_slmc_Slm_##name
/* What Java holds is the pointer as a number. */
#define MODEL(handle) ((slm_model *)(intptr_t)(handle))
#define SESSION(handle) ((slm_session *)(intptr_t)(handle))

static void check(JNIEnv *env, const slm_session *session, slm_status status) {
  if (status)
    fail(env, status, slm_error_text(session));
}

/* Rows of ids, one after another. */
struct rows_of_ids {
  size_t *lengths;
  int32_t *ids;
};

/* Fills in `lengths` and takes `ids`; 0 with an exception. */
static int read_rows(JNIEnv *env, jobjectArray rows, size_t count, struct rows_of_ids *read) {
  size_t total = 0, first = 0;
  for (size_t i = 0; i < count; total += read->lengths[i++]) {
    const jintArray row = (*env)->GetObjectArrayElement(env, rows, (jsize)i);
    if (!given(env, row != NULL))
      return 0;
    read->lengths[i] = (size_t)(*env)->GetArrayLength(env, row);
    (*env)->DeleteLocalRef(env, row);
  }
  read->ids = calloc(total + 1, sizeof *read->ids);
  if (!taken(env, read->ids != NULL))
    return 0;
  for (size_t i = 0; i < count; first += read->lengths[i++]) {
    const jintArray row = (*env)->GetObjectArrayElement(env, rows, (jsize)i);
    if (!given(env, row != NULL))
      return 0;
    (*env)->GetIntArrayRegion(env, row, 0, (jsize)read->lengths[i], read->ids + first);
    (*env)->DeleteLocalRef(env, row);
    if ((*env)->ExceptionCheck(env)) /* another row lies there by now, a shorter one */
      return 0;
  }
  return 1;
}

/* ---- The model ------------------------------------------------------------------------------------------------ */

JAVA(jint, version)(CALLER) {
  (void)env;
  return (jint)slm_version();
}

JAVA(jlong, open)(CALLER, jstring path, jstring kernels) {
  if (!given(env, path != NULL))
    return 0;
  char *file = utf8(env, path), *level = kernels ? utf8(env, kernels) : NULL;
  slm_model *model = NULL;
  if (taken(env, file && (level || !kernels))) {
    const slm_open_options options = {.kernels = level};
    slm_error error;
    if (slm_open(file, &options, &model, &error))
      fail(env, error.status, error.text);
  }
  free(file);
  free(level);
  return (intptr_t)model;
}

JAVA(void, close)(CALLER, jlong model) {
  (void)env;
  slm_close(MODEL(model));
}

static slm_model_info info_of(const slm_model *model) {
  slm_model_info info;
  slm_model_info_get(model, &info);
  return info;
}

JAVA(jint, vocabSize)(CALLER, jlong model) { return given(env, model != 0) ? info_of(MODEL(model)).vocab_size : 0; }

JAVA(jint, context)(CALLER, jlong model) { return given(env, model != 0) ? info_of(MODEL(model)).context : 0; }

JAVA(jstring, kernels)(CALLER, jlong model) {
  return given(env, model != 0) ? (*env)->NewStringUTF(env, info_of(MODEL(model)).kernels) : NULL;
}

/* ---- A session ------------------------------------------------------------------------------------------------ */

JAVA(jlong, newSession)(CALLER, jlong model, jint context, jint threads) {
  if (!given(env, model != 0))
    return 0;
  const slm_session_options options = {.context = context, .threads = threads};
  slm_session *session;
  slm_error error;
  if (slm_session_new(MODEL(model), &options, &session, &error))
    fail(env, error.status, error.text);
  return (intptr_t)session;
}

JAVA(void, freeSession)(CALLER, jlong session) {
  (void)env;
  slm_session_free(SESSION(session));
}

JAVA(void, prefill)(CALLER, jlong session, jintArray ids) {
  if (!given(env, session && ids))
    return;
  const jsize count = (*env)->GetArrayLength(env, ids);
  jint *copy = calloc((size_t)count + 1, sizeof *copy);
  if (!taken(env, copy != NULL))
    return;
  (*env)->GetIntArrayRegion(env, ids, 0, count, copy);
  check(env, SESSION(session), slm_prefill(SESSION(session), copy, (size_t)count));
  free(copy);
}

JAVA(void, decode)(CALLER, jlong session, jint id) {
  if (given(env, session != 0))
    check(env, SESSION(session), slm_decode(SESSION(session), id));
}

JAVA(void, logits)(CALLER, jlong session, jfloatArray to) {
  if (!given(env, session && to))
    return;
  const float *logits = slm_logits(SESSION(session));
  const jsize size = info_of(SESSION(session)->model).vocab_size;
  if (!logits)
    fail(env, SLM_BAD_ARGUMENT, "no logits: no token was read since the session was made, rewound or failed");
  else if ((*env)->GetArrayLength(env, to) != size)
    fail(env, SLM_BAD_ARGUMENT, "the array for logits is not as long as the vocabulary");
  else
    (*env)->SetFloatArrayRegion(env, to, 0, size, logits);
}

JAVA(void, topK)(CALLER, jlong session, jintArray ids, jfloatArray logprobs) {
  if (!given(env, session && ids && logprobs))
    return;
  const jsize k = (*env)->GetArrayLength(env, ids);
  if ((*env)->GetArrayLength(env, logprobs) != k) {
    fail(env, SLM_BAD_ARGUMENT, "arrays of two lengths for ids and log-probabilities");
    return;
  }
  jint *found = calloc((size_t)k + 1, sizeof *found);
  jfloat *values = calloc((size_t)k + 1, sizeof *values);
  if (taken(env, found && values)) {
    if (slm_top_k(SESSION(session), (size_t)k, found, values)) {
      fail(env, SLM_BAD_ARGUMENT, "no logits, or not from 1 to as many tokens as the vocabulary has");
    } else {
      (*env)->SetIntArrayRegion(env, ids, 0, k, found);
      (*env)->SetFloatArrayRegion(env, logprobs, 0, k, values);
    }
  }
  free(found);
  free(values);
}

JAVA(jfloatArray, continuations)(CALLER, jlong session, jobjectArray rows) {
  if (!given(env, session && rows))
    return NULL;
  const jsize count = (*env)->GetArrayLength(env, rows);
  struct rows_of_ids read = {calloc((size_t)count + 1, sizeof *read.lengths), NULL};
  jfloat *logprobs = calloc((size_t)count + 1, sizeof *logprobs);
  jfloatArray result = NULL;
  if (taken(env, read.lengths && logprobs) && read_rows(env, rows, (size_t)count, &read)) {
    const slm_status status =
        slm_continuations(SESSION(session), read.ids, read.lengths, (size_t)count, logprobs);
    check(env, SESSION(session), status);
    result = status ? NULL : (*env)->NewFloatArray(env, count);
    if (result)
      (*env)->SetFloatArrayRegion(env, result, 0, count, logprobs);
  }
  free(read.lengths);
  free(read.ids);
  free(logprobs);
  return result;
}

JAVA(jint, position)(CALLER, jlong session) {
  return given(env, session != 0) ? (jint)slm_position(SESSION(session)) : 0;
}

JAVA(void, rewind)(CALLER, jlong session, jint position) {
  if (!given(env, session != 0))
    return;
  if (position < 0)
    fail(env, SLM_BAD_ARGUMENT, "can't rewind to a position below 0");
  else
    check(env, SESSION(session), slm_rewind(SESSION(session), (size_t)position));
}

JAVA(void, cancel)(CALLER, jlong session) {
  if (given(env, session != 0))
    slm_cancel(SESSION(session));
}
