/* Statuses with their texts. */
#ifndef SLM_ERROR_H
#define SLM_ERROR_H

#include "slm_text.h"

/* Fill in `error`, which may be NULL, and give back the status. */
slm_status slm_fail(slm_error *error, slm_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
