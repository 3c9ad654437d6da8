"""slmc: fine-tuned small language models to phone and laptop artifacts, with proof."""

__version__ = "0.1.0"
