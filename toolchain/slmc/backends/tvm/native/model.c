#include "model.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "file.h"

uint32_t slm_version(void) { return (uint32_t)SLM_VERSION_MAJOR << 16 | SLM_VERSION_MINOR; }

static const struct kernels *choose(const char *name, int exact) {
  const struct kernels *found;
  for (size_t i = 0; (found = slm_kernels_at(i)); i++) {
    if (name ? !strcmp(found->name, name) : found->exact >= exact)
      return found;
  }
  return NULL;
}

slm_status slm_open(const char *path, const slm_open_options *options, slm_model **model, slm_error *error) {
  if (error)
    *error = (slm_error){SLM_OK, ""};
  if (model)
    *model = NULL;
  if (!path || !model)
    return slm_fail(error, SLM_BAD_ARGUMENT, "slm_open needs a path and a place for the model");
  const slm_open_options none = {0}, *asked = options ? options : &none;
  slm_model *made = calloc(1, sizeof *made);
  if (!made)
    return slm_fail(error, SLM_NO_MEMORY, "no memory for a model");
  const uint8_t *bytes;
  size_t size;
  slm_status status = slm_map_file(path, &bytes, &size, error);
  if (status) {
    free(made);
    return status;
  }
  status = slm_weights_parse(bytes, size, asked->verify, &made->weights, error);
  if (status == SLM_OK) {
    made->kernels = choose(asked->kernels, made->weights.config.activations == ACTIVATIONS_FLOAT32);
    if (!made->kernels)
      status = slm_fail(error, SLM_BAD_CPU, "this CPU can't run the kernels %s",
                    asked->kernels ? asked->kernels : "for float32 activations or any other");
  }
  if (status) {
    made->weights.bytes = bytes;
    made->weights.size = size;
    slm_close(made);
    return status;
  }
  *model = made;
  return SLM_OK;
}

void slm_model_info_get(const slm_model *model, slm_model_info *info) {
  const struct config *config = &model->weights.config;
  *info = (slm_model_info){.vocab_size = (int32_t)config->vocab_size,
                           .context = (int32_t)config->context,
                           .file_bytes = model->weights.size,
                           .kernels = model->kernels->name};
  memcpy(info->sha256, model->weights.bytes + 32, sizeof info->sha256);
}

void slm_close(slm_model *model) {
  if (!model)
    return;
  munmap((void *)(uintptr_t)model->weights.bytes, model->weights.size);
  slm_weights_free(&model->weights);
  free(model);
}
