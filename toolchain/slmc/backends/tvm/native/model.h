/* An opened weight file with the kernels that this CPU runs it on. */
#ifndef SLM_MODEL_H
#define SLM_MODEL_H

#include "kernels.h"
#include "weights.h"

struct slm_model {
  struct weights weights;
  const struct kernels *kernels;
};

#endif
