"""A decoder as a model library of MLC's, compiled by TVM for GPUs, or for a CPU to check it."""
