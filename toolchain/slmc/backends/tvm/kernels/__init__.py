"""The decoder's operators as TIR, one file an operator."""
