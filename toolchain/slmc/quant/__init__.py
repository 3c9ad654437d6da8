"""Weights to 4 bits: schemes, rounding, the packed layout, and the checkpoint that holds them."""
