"""Methods that look at the model's activations on calibration data; all of them need torch.

One decoder layer is in memory at a time. Activations lie on disk between layers, in float32.
"""
