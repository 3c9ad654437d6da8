/* slm: answers with a small language model that slmc compiled, on the CPU, from one weight file.
 *
 *     slm_error error;
 *     slm_model *model;
 *     slm_session *session;
 *     if (slm_open("model.slm", NULL, &model, &error)) { puts(error.text); ... }
 *     if (slm_session_new(model, NULL, &session, &error)) { ... }
 *     slm_prefill(session, ids, count);
 *     const float *logits = slm_logits(session);
 *
 * or, with a task file, see slm_text.h, from text to a label:
 *
 *     slm_task_open("task.slm", &task, &error);
 *     slm_decider_new(model, task, NULL, &decider, &error);
 *     slm_classify(decider, &(slm_text){"wire 200 to my sister", 21}, 1, &decision);
 *
 * C11. Nothing is global: models, tasks, sessions and deciders are all there is. Models and tasks are read-only and may
 * be shared on any threads. A session or decider is used by one thread at a time; slm_cancel alone may come from another.
 * Memory is taken by slm_open and slm_session_new, none while reading or decoding; a decider takes more for its first
 * answer in text, and where a text is longer than any before. No file is ever written.
 * Token ids are int32_t, logits natural and unnormalised, log-probabilities natural.
 */
#ifndef SLM_H
#define SLM_H

#include "slm_text.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A program built against a header works with any library of the same major version that is not older. */
#define SLM_VERSION_MAJOR 1
#define SLM_VERSION_MINOR 2
/* Major version << 16 | minor version of the library that was loaded. */
SLM_API uint32_t slm_version(void);

typedef struct slm_model slm_model;
typedef struct slm_session slm_session;

/* ---- The model ------------------------------------------------------------------------------------------------ */

typedef struct slm_open_options {
  int verify;          /* not 0: compare the file with the SHA-256 in its header, which reads all of it */
  const char *kernels; /* NULL: the best that this CPU has; else a name as slm_model_info tells it */
} slm_open_options;

typedef struct slm_model_info {
  int32_t vocab_size;
  int32_t context;     /* the most tokens that a session can hold */
  uint64_t file_bytes; /* mapped, shared between processes, dropped by the system under pressure */
  uint8_t sha256[32];  /* as the file's header has it; binds the model to its bundle */
  const char *kernels; /* such as "avx2" or "dotprod" */
} slm_model_info;

/* Map a weight file. `options` and `error` may be NULL. On failure *model is NULL and `error` tells. */
SLM_API slm_status slm_open(const char *path, const slm_open_options *options, slm_model **model, slm_error *error);
SLM_API void slm_model_info_get(const slm_model *model, slm_model_info *info);
/* Name number `index` of the kernels that this library has and this CPU can run, the best first; NULL past the last. */
SLM_API const char *slm_kernels(size_t index);
/* After its last session. NULL is allowed. */
SLM_API void slm_close(slm_model *model);

/* ---- A session: tokens read so far, with their keys and values ------------------------------------------------- */

typedef struct slm_session_options {
  int32_t context; /* 0: the model's */
  int32_t threads; /* 0: one. On a phone take as many as there are fast cores: slower ones hold the others up */
} slm_session_options;

SLM_API slm_status slm_session_new(const slm_model *model, const slm_session_options *options, slm_session **session,
                                   slm_error *error);
/* NULL is allowed. */
SLM_API void slm_session_free(slm_session *session);

/* Read `count` more tokens, at least one. */
SLM_API slm_status slm_prefill(slm_session *session, const int32_t *ids, size_t count);
/* Read one more token. */
SLM_API slm_status slm_decode(slm_session *session, int32_t id);

/* Of the next token after the last that was read, float [vocab_size]; valid until the session's next call. NULL
 * before the first token, after slm_rewind to an earlier one, and after a call that read tokens and failed. */
SLM_API const float *slm_logits(const slm_session *session);
/* The k likeliest next tokens with their log-probabilities, the likeliest first, ties by id. */
SLM_API slm_status slm_top_k(const slm_session *session, size_t k, int32_t *ids, float *logprobs);
/* The log-probability of each of `count` continuations of what was read. Continuation i is lengths[i] ids, at least
 * one, that follow those of i - 1 in `ids`. The session's tokens and logits stay as they are. */
SLM_API slm_status slm_continuations(slm_session *session, const int32_t *ids, const size_t *lengths, size_t count,
                                     float *logprobs);

/* How many tokens it holds. */
SLM_API size_t slm_position(const slm_session *session);
/* Forget the tokens from `position` on: a prompt's common beginning is read once and kept. */
SLM_API slm_status slm_rewind(slm_session *session, size_t position);
/* From any thread: the call that is running, or else the next one that reads tokens, ends with SLM_CANCELLED. */
SLM_API void slm_cancel(slm_session *session);

typedef struct slm_stats {
  uint64_t memory_bytes;                          /* that the session took, weights apart */
  uint64_t prefill_tokens, prefill_nanoseconds;   /* since it was made, of calls that read more than one token */
  uint64_t decode_tokens, decode_nanoseconds;     /* and of those that read one */
} slm_stats;

SLM_API void slm_stats_get(const slm_session *session, slm_stats *stats);
/* What the session's last failed call says, but for slm_top_k; valid until its next call. */
SLM_API const char *slm_error_text(const slm_session *session);

/* ---- Decisions: a task answered by a model --------------------------------------------------------------------- */

typedef struct slm_decider slm_decider;

typedef struct slm_decider_options {
  int32_t context;     /* 0: the model's */
  int32_t threads;     /* as in slm_session_options */
  const char *prefix;  /* a file with the keys and values of what every prompt begins with; NULL: it is read at first use */
  float abstain_below; /* a decision of a lower probability says that it abstains; 0: none does */
} slm_decider_options;

/* A session with all that a task needs, for one thread at a time. A task of another vocabulary, or a prefix of other
 * weights, kernels or prompt, is SLM_BAD_FILE. */
SLM_API slm_status slm_decider_new(const slm_model *model, const slm_task *task, const slm_decider_options *options,
                                   slm_decider **decider, slm_error *error);
/* NULL is allowed. */
SLM_API void slm_decider_free(slm_decider *decider);
/* What the decider's last failed call says; valid until its next call. */
SLM_API const char *slm_decider_error_text(const slm_decider *decider);
/* From any thread, as slm_cancel. */
SLM_API void slm_decider_cancel(slm_decider *decider);

/* Choose one of the task's labels for an item whose fields are in the order of slm_field_name. */
SLM_API slm_status slm_classify(slm_decider *decider, const slm_text *fields, size_t count, slm_decision *decision);
/* The prompt's ids of the last slm_classify or slm_answer_begin, valid until the next call. */
SLM_API const int32_t *slm_prompt_ids(const slm_decider *decider, size_t *count);
/* The log-probability of label `choice` by the last slm_classify; NAN where it was not come to. */
SLM_API double slm_choice_logprob(const slm_decider *decider, int32_t choice);

/* Decide the task's golden items, see slm_check_prompts, and compare their labels and probabilities with what this model
 * said where it was built: on every CPU with dot products of 8 bits the same to the bit, on others near, so that a
 * difference means that something broke. */
SLM_API slm_status slm_self_test(slm_decider *decider, slm_check *check);

/* What the file `prefix` holds, for this model and task, to be written as it is; reads the prefix if need be. Valid until
 * the decider's next call. */
SLM_API slm_status slm_prefix_make(slm_decider *decider, const void **bytes, size_t *size);

/* How much of the head's matrix a decision reads: rows of it, of so many, padded. */
SLM_API void slm_head_rows(const slm_decider *decider, size_t *kept, size_t *all);

/* ---- Answers in text ------------------------------------------------------------------------------------------- */

/* Read an item's prompt, so that its answer can be written. `sampling` may be NULL. The answer ends with the decider's
 * next call that reads another prompt.
 *
 * Where the task has a grammar, the answer is one that it allows: of a JSON Schema, JSON that fits, and it ends only
 * where that is whole. One that is cut off, by SLM_LENGTH or a stop string, is the start of such an answer. */
SLM_API slm_status slm_answer_begin(slm_decider *decider, const slm_text *fields, size_t count,
                                    const slm_sampling *sampling);
/* Write one more token: the text that is certain now, often none, valid until the next call: whole characters, without
 * what stands before every answer, stop strings, and what could become one. *done is an slm_done; once it is not
 * SLM_MORE there is no more text. Where an answer is cut off inside a character, it ends with U+FFFD: one, or one for
 * each of the last tokens that are bytes. After SLM_CANCELLED the answer can go on; after another failure it can't. */
SLM_API slm_status slm_answer_next(slm_decider *decider, slm_text *text, int32_t *done);
/* The answer's ids so far, without the end token, valid until the next call; those of a stop string are among them. */
SLM_API const int32_t *slm_answer_ids(const slm_decider *decider, size_t *count);
/* The log-probability of each, and of the end token where it came: among all tokens, as the model says it. */
SLM_API const double *slm_answer_logprobs(const slm_decider *decider, size_t *count);

#ifdef __cplusplus
}
#endif
#endif
