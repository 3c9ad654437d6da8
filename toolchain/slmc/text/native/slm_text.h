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
