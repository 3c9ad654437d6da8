/* slm-run: slmc's runner for machines without Python. A workload goes in, a result comes out, by the contract of
 * slmc/runners/contract.py. A program of its own by main.c, and a part of an app where there are no loose programs:
 *
 *     slm-run --model FILE [--task FILE [--prefix FILE]] [--threads N] [--kernels NAME]
 *             --device TEXT --os TEXT --artifact DIGEST --precision TEXT [--activations TEXT]
 *             --workload FILE --result FILE [--sustain SECONDS]
 *
 * What is known of the device and the bundle comes from whoever starts it. Writes RESULT.partial, and gives it its name
 * with the last line. Exit codes are slmc's: 2 for a call that can't be meant so, 16 for what failed. */
#include "slm_run.h"

#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "answers.h"
#include "json.h"

enum { BAD_CALL = 2, FAILED = 16, MOST_THREADS = 256, MOST_SECONDS = 86400, TENTHS = 10 };

struct options {
  const char *model, *task, *prefix, *threads, *kernels, *device, *os, *artifact, *precision, *activations, *workload;
  const char *result, *sustain;
};

static jmp_buf stopped; /* in slm_run */
static int stopped_code;

_Noreturn static void stop(int code, const char *what, const char *more) {
  fprintf(stderr, "%s%s\n", what, more);
  stopped_code = code;
  longjmp(stopped, 1);
}

/* ---- The command line ------------------------------------------------------------------------------------------- */

static struct options parsed(int count, char **words) {
  struct options found = {0};
  const struct {
    const char *name, **value;
    int needed;
  } known[] = {
      {"--model", &found.model, 1},       {"--task", &found.task, 0},           {"--prefix", &found.prefix, 0},
      {"--threads", &found.threads, 0},   {"--kernels", &found.kernels, 0},     {"--device", &found.device, 1},
      {"--os", &found.os, 1},             {"--artifact", &found.artifact, 1},   {"--precision", &found.precision, 1},
      {"--activations", &found.activations, 0}, {"--workload", &found.workload, 1}, {"--result", &found.result, 1},
      {"--sustain", &found.sustain, 0},
  };
  enum { KNOWN = sizeof known / sizeof *known };
  for (int i = 1; i < count; i += 2) {
    size_t at = 0;
    while (at < KNOWN && strcmp(words[i], known[at].name))
      at++;
    if (at == KNOWN)
      stop(BAD_CALL, "no such option: ", words[i]);
    if (i + 1 == count || *known[at].value)
      stop(BAD_CALL, "one value is needed for ", words[i]);
    *known[at].value = words[i + 1];
  }
  for (size_t at = 0; at < KNOWN; at++)
    if (known[at].needed && !*known[at].value)
      stop(BAD_CALL, "missing: ", known[at].name);
  return found;
}

/* Of an option that may be missing. */
static int32_t number_of(const char *text, long most, int32_t otherwise, const char *refusal) {
  if (!text)
    return otherwise;
  char *end;
  const long number = strtol(text, &end, 10);
  if (number < 1 || number > most || *end)
    stop(BAD_CALL, refusal, text);
  return (int32_t)number;
}

/* ---- What is opened --------------------------------------------------------------------------------------------- */

static void need(slm_status status, const slm_error *error) {
  if (status)
    stop(FAILED, error->text, "");
}

/* The model's file and the task's are compared with the digests that they carry. */
static void open_all(const struct options *o, struct answering *a, slm_model_info *info) {
  const slm_open_options verified = {.verify = 1, .kernels = o->kernels};
  slm_error error;
  slm_model *model;
  slm_task *task;
  need(slm_open(o->model, &verified, &model, &error), &error);
  slm_model_info_get(model, info);
  a->model = model;
  a->vocab_size = info->vocab_size;
  a->logprobs = calloc((size_t)a->vocab_size, sizeof *a->logprobs);
  a->order = calloc((size_t)a->vocab_size, sizeof *a->order);
  if (!a->logprobs || !a->order)
    stop(FAILED, "out of memory", "");
  if (!o->task)
    return;
  need(slm_task_open(o->task, &task, &error), &error);
  a->task = task;
  const slm_decider_options options = {.threads = a->threads, .prefix = o->prefix};
  slm_status status = slm_decider_new(model, task, &options, &a->decider, &error);
  if (status == SLM_BAD_FILE && o->prefix) {
    /* Of other kernels: then the first prompt is read from its beginning. */
    fprintf(stderr, "%s\n", error.text);
    status = slm_decider_new(model, task, &(slm_decider_options){.threads = a->threads}, &a->decider, &error);
  }
  need(status, &error);
}

/* ---- The result ------------------------------------------------------------------------------------------------- */

static void write_member(FILE *file, const char *name, const char *text) {
  fprintf(file, ",\"%s\":", name);
  if (text)
    json_write(file, text, strlen(text));
  else
    fputs("null", file);
}

static void write_header(FILE *file, const struct options *o, const struct workload *workload,
                         const slm_model_info *info, int32_t threads) {
  char version[64];
  snprintf(version, sizeof version, "%d.%d, %s", (int)(slm_version() >> 16), (int)(slm_version() & 0xffff),
           info->kernels);
  fputs("{\"slmc_result\":1,\"workload\":", file);
  json_write(file, workload->digest.bytes, workload->digest.size);
  fprintf(file, ",\"environment\":{\"threads\":%d,\"thermal\":null,\"batched\":false,\"runtime\":\"slm\"", (int)threads);
  write_member(file, "version", version);
  write_member(file, "device", o->device);
  write_member(file, "os", o->os);
  write_member(file, "artifact", o->artifact);
  write_member(file, "precision", o->precision);
  write_member(file, "activations", o->activations);
  fputs("}}\n", file);
}

/* The most physical memory that this process has held, in bytes. On Linux getrusage counts in what held it before, which
 * may have been far more. */
static long long peak_memory(void) {
#ifdef __APPLE__
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
#else
  long long kilobytes = 0;
  char line[256];
  FILE *status = fopen("/proc/self/status", "r");
  while (status && fgets(line, sizeof line, status) && sscanf(line, "VmHWM: %lld", &kilobytes) != 1)
    continue;
  if (status)
    fclose(status);
  return kilobytes * 1024;
#endif
}

/* `tenths` is NULL where nothing was sustained. */
static void finish(FILE *file, double load_ms, const int64_t *tenths, const char *partial, const char *result) {
  fprintf(file, "{\"finished\":true,\"peak_memory_bytes\":%lld,\"load_ms\":%.3f", peak_memory(), load_ms);
  for (int i = 0; tenths && i < TENTHS; i++)
    fprintf(file, "%s%lld", i ? "," : ",\"sustained\":[", (long long)tenths[i]);
  fputs(tenths ? "]}\n" : "}\n", file);
  if (fflush(file) || fsync(fileno(file)) || fclose(file))
    stop(FAILED, "the result can't be written: ", strerror(errno));
  if (rename(partial, result))
    stop(FAILED, "the result can't be given its name: ", strerror(errno));
}

/* ---- Answers ---------------------------------------------------------------------------------------------------- */

static double now_s(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* 0 at the workload's end. */
static int answer_next(struct answering *a, struct workload *workload, struct item *item) {
  slm_error error = {SLM_OK, ""};
  slm_status status;
  if (!workload_next(workload, item, &status, &error)) {
    need(status, &error);
    return 0;
  }
  if (answer_item(a, workload, item, &error)) {
    fprintf(stderr, "item %.*s: ", (int)item->id.size, (const char *)item->id.bytes);
    stop(FAILED, error.text, "");
  }
  return 1;
}

/* Asks the items again and again for so long, and counts the answers in each tenth of that time. They were written once:
 * these go nowhere. */
static void sustain(struct answering *a, struct workload *workload, struct item *item, int32_t seconds,
                    int64_t *tenths) {
  a->result = fopen("/dev/null", "wb");
  if (!a->result)
    stop(FAILED, "/dev/null can't be written: ", strerror(errno));
  const double begun = now_s();
  for (;;) {
    const int answered = answer_next(a, workload, item);
    const double tenth = (now_s() - begun) * TENTHS / seconds;
    if (tenth >= TENTHS)
      break;
    if (answered)
      tenths[(int)tenth]++;
    else
      workload_rewind(workload);
  }
  fclose(a->result);
}

static void run(int count, char **words) {
  const struct options o = parsed(count, words);
  const int32_t threads = number_of(o.threads, MOST_THREADS, 1, "--threads needs a number from 1 to 256, not ");
  const int32_t seconds = number_of(o.sustain, MOST_SECONDS, 0, "--sustain needs seconds from 1 to 86400, not ");
  struct answering a = {.threads = threads};
  struct workload workload;
  struct item item = {0};
  slm_model_info info;
  slm_error error;
  need(workload_open(o.workload, &workload, &error), &error);
  const double begun = now_s();
  open_all(&o, &a, &info);
  const double load_ms = (now_s() - begun) * 1e3;
  char partial[4096];
  if ((size_t)snprintf(partial, sizeof partial, "%s.partial", o.result) >= sizeof partial)
    stop(BAD_CALL, "the result's path is too long", "");
  FILE *result = a.result = fopen(partial, "wb");
  if (!result)
    stop(FAILED, "the result can't be written: ", strerror(errno));
  write_header(result, &o, &workload, &info, a.threads);
  while (answer_next(&a, &workload, &item))
    continue;
  int64_t tenths[TENTHS] = {0};
  if (seconds)
    sustain(&a, &workload, &item, seconds, tenths);
  finish(result, load_ms, seconds ? tenths : NULL, partial, o.result);
}

int slm_run(int count, char **words) {
  if (setjmp(stopped))
    return stopped_code;
  run(count, words);
  return 0;
}
