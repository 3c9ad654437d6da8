"""Compiles the decoder for CPUs with TVM: kernels of our own over weights packed for them."""
