"""Hugging Face folders: read lazily, write as a stream, merge LoRA adapters."""
