"""ExecuTorch: a quantized checkpoint into a .pte file whose weights XNNPACK multiplies by."""
