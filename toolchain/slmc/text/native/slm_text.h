/* slm_text: text to tokens and tokens to text, prompts and answers, from a task file that slmc compiled.
 *
 * The same rules as in slm.h: C11, nothing is global, a task is read-only and may be shared by any threads, no file is
 * ever written. Text is UTF-8; what is not is refused where it comes in, and never comes out.
 */
#ifndef SLM_TEXT_H
#define SLM_TEXT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SLM_API __attribute__((visibility("default")))
#else
#define SLM_API
#endif

typedef enum slm_status {
  SLM_OK = 0,
  SLM_BAD_ARGUMENT = 1, /* a call that can't be meant so */
  SLM_NO_FILE = 2,      /* a file can't be opened or mapped */
  SLM_BAD_FILE = 3,     /* it is not a file of this kind and version, or is damaged, or belongs to another */
  SLM_BAD_CPU = 4,      /* no kernels for this CPU, or not those asked for */
  SLM_NO_MEMORY = 5,
  SLM_CONTEXT_FULL = 6, /* more tokens than the session can hold; nothing was read */
  SLM_CANCELLED = 7,    /* slm_cancel was called; the session holds what it held before the call */
  SLM_BAD_NUMBERS = 8,  /* the model answered with values that are no numbers */
  SLM_BAD_TEXT = 9      /* not UTF-8 */
} slm_status;

typedef struct slm_error {
  slm_status status;
  char text[256]; /* in English, ended by a zero */
} slm_error;

/* ---- A task: a tokenizer, a prompt, and what may be answered --------------------------------------------------- */

typedef struct slm_task slm_task;

/* Map a task file; its digest is compared with its bytes. On failure *task is NULL and `error`, which may be NULL,
 * tells. */
SLM_API slm_status slm_task_open(const char *path, slm_task **task, slm_error *error);
/* NULL is allowed. */
SLM_API void slm_task_close(slm_task *task);

/* A text that need not end with a zero. */
typedef struct slm_text {
  const char *bytes;
  size_t size;
} slm_text;

/* How many fields an item has, and the name of each; how many labels there are to choose from, and each. Texts are the
 * task's own; beyond the last they are empty. */
SLM_API size_t slm_field_count(const slm_task *task);
SLM_API slm_text slm_field_name(const slm_task *task, size_t index);
SLM_API size_t slm_label_count(const slm_task *task);
SLM_API slm_text slm_label(const slm_task *task, size_t index);

/* ---- Text to tokens -------------------------------------------------------------------------------------------- */

typedef struct slm_encoder slm_encoder;

/* Memory for encoding, for one thread at a time. */
SLM_API slm_status slm_encoder_new(const slm_task *task, slm_encoder **encoder, slm_error *error);
SLM_API void slm_encoder_free(slm_encoder *encoder);
/* The ids of a text, valid until the encoder's next call. With `special` the tokenizer's own tokens stand around
 * them, such as BOS. */
SLM_API slm_status slm_encode(slm_encoder *encoder, slm_text text, int special, const int32_t **ids, size_t *count);

/* ---- Tokens to text -------------------------------------------------------------------------------------------- */

typedef struct slm_speller slm_speller;

/* Memory for the text of an answer, for one thread at a time. */
SLM_API slm_status slm_speller_new(const slm_task *task, slm_speller **speller, slm_error *error);
SLM_API void slm_speller_free(slm_speller *speller);
/* The text that one more token adds, whole characters only, valid until the speller's next call. Special tokens and
 * ids without a token add none. */
SLM_API slm_status slm_spell(slm_speller *speller, int32_t id, slm_text *text);
/* What is left at the end, such as U+FFFD for half a character. The next token begins another answer. */
SLM_API slm_status slm_spell_end(slm_speller *speller, slm_text *text);

/* ---- Decisions ------------------------------------------------------------------------------------------------- */

typedef struct slm_decision {
  int32_t choice;          /* the likeliest: a label's index */
  float probability;       /* its share among all labels, good to three digits */
  float unexplored;        /* what those labels share that need not be looked at; at most 0.001 */
  int32_t abstained;       /* not 0: the probability is below what was asked for */
  int32_t prompt_tokens;   /* of the whole prompt */
  int32_t prefill_tokens;  /* of them and what all labels begin with, read by the model now; it had the others */
  int32_t decode_tokens;   /* of labels, read in `decode_steps` calls of the model */
  int32_t decode_steps;
  uint64_t encode_nanoseconds, prefill_nanoseconds, decode_nanoseconds;
} slm_decision;

typedef struct slm_chooser slm_chooser;

/* The search for the likeliest label, for a runtime of any kind that reads tokens and tells logits; slm_classify of slm.h
 * does all of it, and faster. For one thread at a time. */
SLM_API slm_status slm_chooser_new(const slm_task *task, slm_chooser **chooser, slm_error *error);
SLM_API void slm_chooser_free(slm_chooser *chooser);
/* The ids of an item's prompt, whose fields are in the order of slm_field_name, and of what all labels begin with:
 * `ids`, valid until the next slm_chooser_begin. The logits after the last of them are wanted first. */
SLM_API slm_status slm_chooser_begin(slm_chooser *chooser, const slm_text *fields, size_t count, const int32_t **ids,
                                     size_t *id_count);
/* Take logits, float [vocab_size], and tell what is wanted next: the logits after `path`, ids that follow those of
 * slm_chooser_begin, valid until the next call; or, where *path_count is 0, nothing: the search is done. */
SLM_API slm_status slm_chooser_give(slm_chooser *chooser, const float *logits, size_t vocab_size, const int32_t **path,
                                    size_t *path_count);
/* Of a search that is done; but for the prompt's tokens, counts and times are 0. */
SLM_API slm_status slm_chooser_decision(const slm_chooser *chooser, slm_decision *decision);
/* The log-probability of label `choice` by that search; NAN where it was not come to. */
SLM_API double slm_chooser_logprob(const slm_chooser *chooser, int32_t choice);

/* ---- Answers in text ------------------------------------------------------------------------------------------- */

/* How tokens are taken: with all 0 the likeliest each time, to the end. Logits are divided by the temperature; the
 * top_k likeliest are kept (0: all), of equal ones those with lower ids; of those the first that have top_p of the
 * probability between them (0: all); one of them is drawn. The same logits and seed give the same answer on every CPU. */
typedef struct slm_sampling {
  float temperature; /* 0: the likeliest token is taken, and what follows here has no effect */
  float top_p;
  int32_t top_k;
  int32_t max_tokens; /* 0: as many as there is room for */
  uint64_t seed;
  const slm_text *stops; /* texts that end the answer where the first of them is whole; copied */
  size_t stop_count;
} slm_sampling;

typedef enum slm_done {
  SLM_MORE = 0,
  SLM_ENDED = 1,   /* the model says so */
  SLM_STOPPED = 2, /* by a stop string */
  SLM_LENGTH = 3   /* by max_tokens or the context, wherever that cuts it off */
} slm_done;

typedef struct slm_writer slm_writer;

/* Writes answers in text, for a runtime of any kind that reads tokens and tells logits; slm_answer_begin of slm.h does
 * all of it. For one thread at a time. */
SLM_API slm_status slm_writer_new(const slm_task *task, slm_writer **writer, slm_error *error);
/* NULL is allowed. */
SLM_API void slm_writer_free(slm_writer *writer);
/* What the writer's last failed call says; valid until its next call. */
SLM_API const char *slm_writer_error_text(const slm_writer *writer);
/* The ids of an item's prompt, whose fields are in the order of slm_field_name: `ids`, valid until the next
 * slm_writer_begin. The logits after the last of them are wanted first. `sampling` may be NULL. The prompt and all of
 * the answer but its last token fit a context of `context` tokens: SLM_CONTEXT_FULL where the prompt doesn't.
 *
 * Where the task has a grammar, the answer is one that it allows: of a JSON Schema, JSON that fits, and it ends only
 * where that is whole. One that is cut off, by SLM_LENGTH or a stop string, is the start of such an answer. */
SLM_API slm_status slm_writer_begin(slm_writer *writer, const slm_text *fields, size_t count,
                                    const slm_sampling *sampling, size_t context, const int32_t **ids,
                                    size_t *id_count);
/* Take logits, float [vocab_size], and write one more token: the text that is certain now, often none, valid until the
 * next call: whole characters, without what stands before every answer, stop strings, and what could become one. *done
 * is an slm_done: while it is SLM_MORE, the logits after *id are wanted next, an id that follows the prompt's and those
 * before it; once it is not, there is no more text, and *id is -1 where the model said so. Where an answer is cut off
 * inside a character, it ends with U+FFFD: one, or one for each of the last tokens that are bytes. After a failure the
 * answer can't go on. */
SLM_API slm_status slm_writer_give(slm_writer *writer, const float *logits, size_t vocab_size, int32_t *id,
                                   slm_text *text, int32_t *done);
/* The answer's ids so far, without the end token, valid until the next call; those of a stop string are among them. */
SLM_API const int32_t *slm_writer_ids(const slm_writer *writer, size_t *count);
/* The log-probability of each, and of the end token where it came: among all tokens, as the model says it. */
SLM_API const double *slm_writer_logprobs(const slm_writer *writer, size_t *count);

/* ---- The canary ------------------------------------------------------------------------------------------------ */

typedef struct slm_check {
  int32_t items;  /* that the task has to check itself by */
  int32_t failed; /* the first that came out otherwise, or -1 */
  char text[256]; /* what was otherwise, and in which step; empty where all is well */
} slm_check;

/* Render and encode the task's golden prompts, and compare their ids with those of where it was built. */
SLM_API slm_status slm_check_prompts(const slm_task *task, slm_check *check);

#ifdef __cplusplus
}
#endif
#endif
