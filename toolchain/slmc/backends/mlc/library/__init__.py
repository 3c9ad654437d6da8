"""A decoder as a model library of MLC's: functions, cache and kernels, compiled by TVM for GPUs, or for a CPU to check."""
