#include "cpu.h"

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>

struct leaf {
  unsigned a, b, c, d;
};

static struct leaf leaf(unsigned number, unsigned part) {
  struct leaf found = {0, 0, 0, 0};
  __get_cpuid_count(number, part, &found.a, &found.b, &found.c, &found.d);
  return found;
}

static int has(unsigned word, unsigned bits) { return (word & bits) == bits; }

int slm_cpu_has(const char *level) {
  const struct leaf basic = leaf(1, 0), extended = leaf(7, 0), more = leaf(7, 1);
  uint32_t state = 0; /* which registers the system keeps for a thread */
  if (has(basic.c, 1u << 27)) {
    uint32_t high;
    __asm__ volatile("xgetbv" : "=a"(state), "=d"(high) : "c"(0));
  }
  const unsigned fma_f16c_avx = 1u << 12 | 1u << 29 | 1u << 28, bmi1_avx2_bmi2 = 1u << 3 | 1u << 5 | 1u << 8;
  /* lzcnt and movbe came with them, but a hypervisor may hide one. */
  const int avx2 = has(state, 6) && has(basic.c, fma_f16c_avx | 1u << 22) && has(extended.b, bmi1_avx2_bmi2) &&
                   has(leaf(0x80000001u, 0).c, 1u << 5);
  const unsigned f_dq_cd_bw_vl = 1u << 16 | 1u << 17 | 1u << 28 | 1u << 30 | 1u << 31;
  if (!strcmp(level, "avx512vnni"))
    return avx2 && has(state, 0xe6) && has(extended.b, f_dq_cd_bw_vl) && has(extended.c, 1u << 11);
  if (!strcmp(level, "avxvnni")) /* LLVM shifts bytes with GFNI, which came before it */
    return avx2 && has(more.a, 1u << 4) && has(extended.c, 1u << 8);
  if (!strncmp(level, "avx2", 4))
    return avx2;
  return 1;
}

#elif defined(__aarch64__)

#if defined(__APPLE__)
#include <sys/sysctl.h>

static int has(const char *feature) {
  int found = 0;
  size_t size = sizeof found;
  return sysctlbyname(feature, &found, &size, NULL, 0) == 0 && found != 0;
}

int slm_cpu_has(const char *level) {
  if (!strcmp(level, "dotprod"))
    return has("hw.optional.arm.FEAT_DotProd");
  if (!strcmp(level, "i8mm"))
    return has("hw.optional.arm.FEAT_DotProd") && has("hw.optional.arm.FEAT_I8MM");
  return 1;
}

#else
#include <sys/auxv.h>

/* Linux's numbers, arch/arm64/include/uapi/asm/hwcap.h. */
enum { DOTPROD = 1 << 20, I8MM = 1 << 13, HWCAP = 16, HWCAP2 = 26 };

int slm_cpu_has(const char *level) {
  const int dotprod = (getauxval(HWCAP) & DOTPROD) != 0;
  if (!strcmp(level, "dotprod"))
    return dotprod;
  if (!strcmp(level, "i8mm"))
    return dotprod && (getauxval(HWCAP2) & I8MM) != 0;
  return 1;
}
#endif
#endif
