/* What the native methods of all classes have in common: exceptions, strings and arrays. */
#ifndef SLM_JNI_SUPPORT_H
#define SLM_JNI_SUPPORT_H

#include <stdio.h>
#include <stdlib.h>

#include "jni_abi.h"
#include "slm.h"

#define CALLER JNIEnv *env, __attribute__((unused)) jclass caller

/* ---- Exceptions ----------------------------------------------------------------------------------------------- */

/* "STATUS: TEXT", which SlmException takes apart. */
static inline void fail(JNIEnv *env, slm_status status, const char *text) {
  char message[sizeof((slm_error *)0)->text + 16];
  snprintf(message, sizeof message, "%d: %s", (int)status, text);
  /* A path may be in it, cut off within a letter; a JVM may end the app for text that is not its own UTF-8. */
  for (char *c = message; *c; c++) {
    if (*c & 0x80)
      *c = '?';
  }
  jclass exception = (*env)->FindClass(env, "org/slmc/SlmException");
  if (!exception) {
    (*env)->ExceptionClear(env);
    exception = (*env)->FindClass(env, "java/lang/RuntimeException");
  }
  if (exception)
    (*env)->ThrowNew(env, exception, message);
}

/* Tells whether all that a call needs is there, and throws where it is not. */
static inline int given(JNIEnv *env, int all) {
  if (!all)
    fail(env, SLM_BAD_ARGUMENT, "an argument is null or 0");
  return all;
}

/* The same of memory. */
static inline int taken(JNIEnv *env, int all) {
  if (!all)
    fail(env, SLM_NO_MEMORY, "no memory for a copy of the arguments");
  return all;
}

/* ---- Strings and arrays, copied: Java's threads may change theirs meanwhile --------------------------------- */

static inline char *put_utf8(char *to, uint32_t c) {
  /* Zero in two bytes, as Java does, so that it doesn't end the string: no file has such a name. */
  if (c && c < 0x80) {
    *to++ = (char)c;
    return to;
  }
  const int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
  *to++ = (char)((0xff00 >> (more + 1) & 0xff) | c >> 6 * more);
  for (int i = more - 1; i >= 0; i--)
    *to++ = (char)(0x80 | (c >> 6 * i & 0x3f));
  return to;
}

/* UTF-8, to be freed; NULL where there is no memory. JNI's own has letters beyond 16 bits in another way, by which
 * no file is found. */
static inline char *utf8(JNIEnv *env, jstring string) {
  const size_t length = (size_t)(*env)->GetStringLength(env, string);
  jchar *units = calloc(length + 1, sizeof *units); /* one more, a zero */
  char *text = units ? malloc(3 * length + 1) : NULL, *end = text;
  if (text) {
    (*env)->GetStringRegion(env, string, 0, (jsize)length, units);
    for (size_t i = 0; i < length; i++) {
      uint32_t c = units[i];
      if ((c & 0xfc00) == 0xd800 && (units[i + 1] & 0xfc00) == 0xdc00)
        c = 0x10000 + ((c & 0x3ff) << 10) + (units[++i] & 0x3ff);
      end = put_utf8(end, c);
    }
    *end = 0;
  }
  free(units);
  return text;
}

/* Texts, one after another. */
struct texts {
  slm_text *each;
  char *bytes;
  size_t count;
};

/* Fills in what must be freed in any case; 0 with an exception. */
static inline int take_texts(JNIEnv *env, jobjectArray rows, struct texts *read) {
  size_t total = 0, first = 0;
  read->count = (size_t)(*env)->GetArrayLength(env, rows);
  read->each = calloc(read->count + 1, sizeof *read->each);
  if (!taken(env, read->each != NULL))
    return 0;
  for (size_t i = 0; i < read->count; total += read->each[i++].size) {
    const jbyteArray row = (*env)->GetObjectArrayElement(env, rows, (jsize)i);
    if (!given(env, row != NULL))
      return 0;
    read->each[i].size = (size_t)(*env)->GetArrayLength(env, row);
    (*env)->DeleteLocalRef(env, row);
  }
  read->bytes = malloc(total + 1);
  if (!taken(env, read->bytes != NULL))
    return 0;
  for (size_t i = 0; i < read->count; first += read->each[i++].size) {
    const jbyteArray row = (*env)->GetObjectArrayElement(env, rows, (jsize)i);
    if (!given(env, row != NULL))
      return 0;
    (*env)->GetByteArrayRegion(env, row, 0, (jsize)read->each[i].size, (jbyte *)read->bytes + first);
    (*env)->DeleteLocalRef(env, row);
    if ((*env)->ExceptionCheck(env)) /* another row lies there by now, a shorter one */
      return 0;
    read->each[i].bytes = read->bytes + first;
  }
  return 1;
}

static inline void free_texts(struct texts *texts) {
  free(texts->each);
  free(texts->bytes);
}

/* An item whose answer in text is wanted, and how. */
struct asked {
  struct texts fields, stops;
  slm_sampling sampling;
};

#define SAMPLING jfloat temperature, jfloat top_p, jint top_k, jint max_tokens, jlong seed, jobjectArray stops
#define SAMPLING_NUMBERS {temperature, top_p, top_k, max_tokens, (uint64_t)seed, NULL, 0}

/* Fills in what must be freed in any case; 0 with an exception. */
static inline int take_asked(JNIEnv *env, jobjectArray fields, jobjectArray stops, struct asked *asked) {
  if (!take_texts(env, fields, &asked->fields) || !take_texts(env, stops, &asked->stops))
    return 0;
  asked->sampling.stops = asked->stops.each;
  asked->sampling.stop_count = asked->stops.count;
  return 1;
}

static inline void free_asked(struct asked *asked) {
  free_texts(&asked->fields);
  free_texts(&asked->stops);
}

/* ---- What Java is given ----------------------------------------------------------------------------------------- */

/* UTF-8 as bytes: JNI's own strings have letters beyond 16 bits in another way. */
static inline jbyteArray new_text(JNIEnv *env, slm_text text) {
  const jbyteArray made = (*env)->NewByteArray(env, (jsize)text.size);
  if (made && text.size)
    (*env)->SetByteArrayRegion(env, made, 0, (jsize)text.size, (const jbyte *)text.bytes);
  return made;
}

static inline jintArray new_ids(JNIEnv *env, const int32_t *ids, size_t count) {
  const jintArray made = (*env)->NewIntArray(env, (jsize)count);
  if (made && count)
    (*env)->SetIntArrayRegion(env, made, 0, (jsize)count, ids);
  return made;
}

static inline jdoubleArray new_doubles(JNIEnv *env, const jdouble *values, size_t count) {
  const jdoubleArray made = (*env)->NewDoubleArray(env, (jsize)count);
  if (made && count)
    (*env)->SetDoubleArrayRegion(env, made, 0, (jsize)count, values);
  return made;
}

/* What SlmPiece takes apart: two numbers as the CPU has them, and the text. */
static inline jbyteArray new_piece(JNIEnv *env, int32_t id, slm_text text, int32_t done) {
  const int32_t numbers[] = {id, done};
  const jsize first = sizeof numbers;
  const jbyteArray made = (*env)->NewByteArray(env, first + (jsize)text.size);
  if (made)
    (*env)->SetByteArrayRegion(env, made, 0, first, (const jbyte *)numbers);
  if (made && text.size)
    (*env)->SetByteArrayRegion(env, made, first, (jsize)text.size, (const jbyte *)text.bytes);
  return made;
}

/* What SlmDecision takes apart: every number is exact as a double. */
static inline jdoubleArray new_decision(JNIEnv *env, const slm_decision *d) {
  const jdouble numbers[] = {
      d->choice,        d->probability,    d->unexplored,
      d->abstained,     d->prompt_tokens,  d->prefill_tokens,
      d->decode_tokens, d->decode_steps,   (jdouble)d->encode_nanoseconds,
      (jdouble)d->prefill_nanoseconds,     (jdouble)d->decode_nanoseconds,
  };
  return new_doubles(env, numbers, sizeof numbers / sizeof *numbers);
}

/* "ITEMS FAILED TEXT", which SlmCheck takes apart. */
static inline jbyteArray new_check(JNIEnv *env, const slm_check *check) {
  char text[sizeof check->text + 32];
  const int size = snprintf(text, sizeof text, "%d %d %s", (int)check->items, (int)check->failed, check->text);
  return new_text(env, (slm_text){text, (size_t)size});
}

#endif
