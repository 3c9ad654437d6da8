/* Any bytes as a weight file: refused with a text, or read as a model. See fuzz.h. */
#include <string.h>

#include "fuzz.h"
#include "session.h"

enum { MOST_CONTEXT = 8 };

/* A few tokens through a model, whatever its numbers are. */
static void answer(const struct weights *weights) {
  slm_model model = {*weights, NULL};
  const int exact = weights->config.activations == ACTIVATIONS_FLOAT32;
  for (size_t i = 0; !model.kernels || model.kernels->exact != exact; i++)
    CHECK(model.kernels = slm_kernels_at(i));
  const int32_t context = (int32_t)weights->config.context, few = context < MOST_CONTEXT ? context : MOST_CONTEXT;
  const int32_t last = (int32_t)weights->config.vocab_size - 1;
  const int32_t ids[MOST_CONTEXT] = {0, last, last / 2, 0, last, last / 3, 0, last};
  const slm_session_options options = {few, 1};
  slm_session *session;
  CHECK(slm_session_new(&model, &options, &session, NULL) == SLM_OK);
  slm_status status = slm_prefill(session, ids, (size_t)few);
  CHECK(status == SLM_OK || status == SLM_BAD_NUMBERS);
  CHECK(slm_rewind(session, 0) == SLM_OK);
  status = slm_decode(session, last);
  CHECK(status == SLM_OK || status == SLM_BAD_NUMBERS);
  int32_t top;
  float logprob;
  CHECK(slm_top_k(session, 1, &top, &logprob) == (status ? SLM_BAD_ARGUMENT : SLM_OK));
  slm_session_free(session);
}

static slm_status parse(const uint8_t *bytes, size_t size, int verify) {
  struct weights weights;
  error = (slm_error){SLM_OK, ""};
  const slm_status status = slm_weights_parse(bytes, size, verify, &weights, &error);
  CHECK(status == error.status && (status == SLM_OK || (status == SLM_BAD_FILE && error.text[0])));
  if (status == SLM_OK) {
    if (!verify)
      answer(&weights);
    slm_weights_free(&weights);
  }
  return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  void *bytes; /* which begin as a mapped file does, and end where the file does */
  CHECK(!posix_memalign(&bytes, 64, size));
  if (size)
    memcpy(bytes, data, size);
  if (parse(bytes, size, 0) == SLM_OK)
    parse(bytes, size, 1);
  free(bytes);
  return 0;
}
