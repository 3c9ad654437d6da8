/* What the CPU can do, asked once for each level. */
#ifndef SLM_CPU_H
#define SLM_CPU_H

/* 1 where it has all that the level of this name in kernels/levels.py uses. */
int slm_cpu_has(const char *level);

#endif
