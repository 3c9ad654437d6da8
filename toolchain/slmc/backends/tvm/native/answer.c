/* slm.h: answers in text. */
#include "decider.h"
#include "error.h"

static slm_status refuse(slm_decider *d, slm_status status, const char *text) {
  return slm_fail(&d->session->error, status, "%s", text);
}

static size_t vocab_size(const slm_decider *d) { return d->session->model->weights.config.vocab_size; }

slm_status slm_answer_begin(slm_decider *decider, const slm_text *fields, size_t count, const slm_sampling *sampling) {
  slm_session *session = decider->session;
  struct writing *answer = &decider->answer;
  answer->begun = 0;
  if (!fields && count)
    return refuse(decider, SLM_BAD_ARGUMENT, "slm_answer_begin needs fields");
  int32_t read = 0;
  slm_status status = slm_writing_ask(answer, sampling, &session->error);
  if (!status)
    status = slm_decider_encode(decider, fields, count);
  if (!status)
    status = slm_decider_read(decider, 0, &read);
  if (!status)
    status = slm_session_find_logits(session, (size_t)read);
  if (status)
    return status;
  /* The last token need not be read. */
  const size_t room = (size_t)session->context - decider->prompt_tokens + 1;
  return slm_writing_begin(answer, decider->task, room, vocab_size(decider), &session->error);
}

/* The last token, where the session has not read it yet. */
static slm_status read_last(slm_decider *d) {
  size_t count;
  const int32_t *ids = slm_writing_ids(&d->answer, &count);
  const size_t position = (size_t)d->session->position;
  if (position == d->prompt_tokens + count)
    return SLM_OK;
  slm_status status = slm_session_read(d->session, &ids[count - 1], 1);
  if (!status)
    status = slm_session_find_logits(d->session, 1);
  if (!status)
    d->held[position] = ids[count - 1];
  return status;
}

static slm_status take_token(slm_decider *d) {
  slm_status status = read_last(d);
  if (status) {
    d->answer.begun = status == SLM_CANCELLED;
    return status;
  }
  return slm_writing_take(&d->answer, d->session->logits, vocab_size(d), &d->session->error);
}

slm_status slm_answer_next(slm_decider *decider, slm_text *text, int32_t *done) {
  struct writing *answer = &decider->answer;
  if (!text || !done || !answer->begun)
    return refuse(decider, SLM_BAD_ARGUMENT,
                  "slm_answer_next needs an answer that was begun, and places for what it says");
  const int more = answer->done == SLM_MORE;
  const slm_status status = more ? take_token(decider) : SLM_OK;
  if (status)
    return status;
  *text = more ? slm_writing_text(answer) : (slm_text){NULL, 0};
  *done = (int32_t)answer->done;
  return SLM_OK;
}

const int32_t *slm_answer_ids(const slm_decider *decider, size_t *count) {
  return slm_writing_ids(&decider->answer, count);
}

const double *slm_answer_logprobs(const slm_decider *decider, size_t *count) {
  return slm_writing_logprobs(&decider->answer, count);
}
