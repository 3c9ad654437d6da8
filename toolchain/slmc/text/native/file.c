#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

slm_status slm_map_file(const char *path, const uint8_t **bytes, size_t *size, slm_error *error) {
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
