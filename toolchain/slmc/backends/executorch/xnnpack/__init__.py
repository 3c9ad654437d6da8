"""A decoder as XNNPACK's graphs."""
