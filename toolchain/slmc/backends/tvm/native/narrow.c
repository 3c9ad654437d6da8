#include "narrow.h"

#include <string.h>

#include "kernels.h"

/* Row `from` of one matrix to row `to` of another; docs/weight-file.md tells where a row's numbers lie. */
static void copy_row(const struct matrix *matrix, int64_t group, int64_t from, uint8_t *codes, uint16_t *scales,
                     int64_t to) {
  const int64_t vectors = matrix->columns / BLOCK * matrix->bits, groups = matrix->columns / group;
  const uint8_t *source = matrix->codes + from / LANES * vectors * 32 + from % LANES * 4;
  uint8_t *target = codes + to / LANES * vectors * 32 + to % LANES * 4;
  for (int64_t i = 0; i < vectors; i++)
    memcpy(target + 32 * i, source + 32 * i, 4);
  for (int64_t i = 0; i < groups; i++)
    scales[(to / LANES * groups + i) * LANES + to % LANES] =
        matrix->scales[(from / LANES * groups + i) * LANES + from % LANES];
}

static size_t code_bytes(const struct matrix *head, uint32_t count) {
  return (size_t)(slm_padded_rows(count) * head->columns / 8 * head->bits);
}

size_t slm_narrow_size(const struct matrix *head, uint32_t group, uint32_t count) {
  return code_bytes(head, count) + (size_t)(slm_padded_rows(count) * (head->columns / group)) * sizeof *head->scales;
}

struct matrix slm_narrow(const struct matrix *head, uint32_t group, const uint32_t *rows, uint32_t count,
                         uint8_t *memory) {
  const int64_t padded = slm_padded_rows(count);
  uint16_t *scales = (uint16_t *)(void *)(memory + code_bytes(head, count));
  for (int64_t i = 0; i < padded; i++)
    copy_row(head, group, rows[i < count ? i : count - 1], memory, scales, i);
  return (struct matrix){memory, scales, padded, head->columns, head->bits};
}
