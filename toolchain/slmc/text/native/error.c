#include "error.h"

#include <stdarg.h>
#include <stdio.h>

slm_status slm_fail(slm_error *error, slm_status status, const char *format, ...) {
  if (error) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
    error->status = status;
  }
  return status;
}
