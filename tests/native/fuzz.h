/* What the fuzzing drivers share: libFuzzer's entry, and without libFuzzer a main that takes files from stdin, each after
 * its size in 4 bytes, and says one line about each. */
#ifndef FUZZ_H
#define FUZZ_H

#include "check.h"

static slm_error error; /* of the last file */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#ifndef SLM_LIBFUZZER
int main(void) {
  uint32_t size;
  while (fread(&size, sizeof size, 1, stdin) == 1) {
    uint8_t *bytes = malloc(size + 1);
    CHECK(bytes && fread(bytes, 1, size, stdin) == size);
    LLVMFuzzerTestOneInput(bytes, size);
    puts(error.status ? error.text : "read");
    free(bytes);
  }
  return 0;
}
#endif

#endif
