/* Files that are read in place. */
#ifndef SLM_FILE_H
#define SLM_FILE_H

#include "error.h"

/* Map a file of at least one byte, for munmap. */
slm_status slm_map_file(const char *path, const uint8_t **bytes, size_t *size, slm_error *error);

#endif
