/* The part of the Java Native Interface that jni*.c use, so that no JDK or NDK is needed to build it.
 *
 * A JVM hands over a table of functions that has been the same, but for additions at its end, since JNI 1.1. The
 * places are those of the JNI specification, chapter 4 "JNI Functions", where each function has its "Index in the
 * JNIEnv interface function table" (docs.oracle.com/en/java/javase/17/docs/specs/jni/functions.html).
 */
#ifndef SLM_JNI_ABI_H
#define SLM_JNI_ABI_H

#include <stddef.h>
#include <stdint.h>

typedef int32_t jint, jsize;
typedef int64_t jlong;
typedef float jfloat;
typedef double jdouble;
typedef int8_t jbyte;
typedef uint8_t jboolean;
typedef uint16_t jchar; /* a unit of UTF-16 */
typedef struct jni_object *jobject;
typedef jobject jclass, jstring, jbyteArray, jintArray, jfloatArray, jdoubleArray, jobjectArray;

typedef const struct jni_functions *JNIEnv;

struct jni_functions {
  void *until_6[6];
  jclass (*FindClass)(JNIEnv *, const char *name);
  void *until_14[7];
  jint (*ThrowNew)(JNIEnv *, jclass exception, const char *message);
  void *until_17[2];
  void (*ExceptionClear)(JNIEnv *);
  void *until_23[5];
  void (*DeleteLocalRef)(JNIEnv *, jobject);
  void *until_164[140];
  jsize (*GetStringLength)(JNIEnv *, jstring);
  void *until_167[2];
  jstring (*NewStringUTF)(JNIEnv *, const char *text);
  void *until_171[3];
  jsize (*GetArrayLength)(JNIEnv *, jobject array);
  void *until_173[1];
  jobject (*GetObjectArrayElement)(JNIEnv *, jobjectArray, jsize index);
  void *until_176[2];
  jbyteArray (*NewByteArray)(JNIEnv *, jsize length);
  void *until_179[2];
  jintArray (*NewIntArray)(JNIEnv *, jsize length);
  void *until_181[1];
  jfloatArray (*NewFloatArray)(JNIEnv *, jsize length);
  jdoubleArray (*NewDoubleArray)(JNIEnv *, jsize length);
  void *until_200[17];
  void (*GetByteArrayRegion)(JNIEnv *, jbyteArray, jsize first, jsize length, jbyte *to);
  void *until_203[2];
  void (*GetIntArrayRegion)(JNIEnv *, jintArray, jsize first, jsize length, jint *to);
  void *until_205[1];
  void (*GetFloatArrayRegion)(JNIEnv *, jfloatArray, jsize first, jsize length, jfloat *to);
  void *until_208[2];
  void (*SetByteArrayRegion)(JNIEnv *, jbyteArray, jsize first, jsize length, const jbyte *from);
  void *until_211[2];
  void (*SetIntArrayRegion)(JNIEnv *, jintArray, jsize first, jsize length, const jint *from);
  void *until_213[1];
  void (*SetFloatArrayRegion)(JNIEnv *, jfloatArray, jsize first, jsize length, const jfloat *from);
  void (*SetDoubleArrayRegion)(JNIEnv *, jdoubleArray, jsize first, jsize length, const jdouble *from);
  void *until_220[5];
  void (*GetStringRegion)(JNIEnv *, jstring, jsize first, jsize length, jchar *to);
  void *until_222[1];
  void *(*GetPrimitiveArrayCritical)(JNIEnv *, jobject array, jboolean *copied);
  void (*ReleasePrimitiveArrayCritical)(JNIEnv *, jobject array, void *, jint mode);
  void *until_228[4];
  jboolean (*ExceptionCheck)(JNIEnv *);
};

/* A mode of ReleasePrimitiveArrayCritical: what was not changed need not be copied back. */
enum { JNI_ABORT = 2 };

#define JNI_AT(index, function) \
  _Static_assert(offsetof(struct jni_functions, function) == (index) * sizeof(void *), "the place of " #function)
JNI_AT(6, FindClass);
JNI_AT(14, ThrowNew);
JNI_AT(17, ExceptionClear);
JNI_AT(23, DeleteLocalRef);
JNI_AT(164, GetStringLength);
JNI_AT(167, NewStringUTF);
JNI_AT(171, GetArrayLength);
JNI_AT(173, GetObjectArrayElement);
JNI_AT(176, NewByteArray);
JNI_AT(179, NewIntArray);
JNI_AT(181, NewFloatArray);
JNI_AT(182, NewDoubleArray);
JNI_AT(200, GetByteArrayRegion);
JNI_AT(203, GetIntArrayRegion);
JNI_AT(205, GetFloatArrayRegion);
JNI_AT(208, SetByteArrayRegion);
JNI_AT(211, SetIntArrayRegion);
JNI_AT(213, SetFloatArrayRegion);
JNI_AT(214, SetDoubleArrayRegion);
JNI_AT(220, GetStringRegion);
JNI_AT(222, GetPrimitiveArrayCritical);
JNI_AT(223, ReleasePrimitiveArrayCritical);
JNI_AT(228, ExceptionCheck);
#undef JNI_AT

#endif
