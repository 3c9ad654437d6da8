#include "model.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "error.h"

uint32_t slm_version(void) { return (uint32_t)SLM_VERSION_MAJOR << 16 | SLM_VERSION_MINOR; }

static slm_status map_file(const char *path, const uint8_t **bytes, size_t *size, slm_error *error) {
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0)
    return slm_fail(error, SLM_NO_FILE, "%s can't be opened: %s", path, strerror(errno));
  const off_t end = lseek(file, 0, SEEK_END);
  void *mapped = end > 0 ? mmap(NULL, (size_t)end, PROT_READ, MAP_SHARED, file, 0) : MAP_FAILED;
  const int cause = errno;
  close(file);
  if (end == 0)
    return slm_fail(error, SLM_BAD_FILE, "%s is empty", path);
  if (mapped == MAP_FAILED)
    return slm_fail(error, SLM_NO_FILE, "%s can't be mapped: %s", path, strerror(cause));
  *bytes = mapped;
  *size = (size_t)end;
  return SLM_OK;
}

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
  slm_status status = map_file(path, &bytes, &size, error);
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
