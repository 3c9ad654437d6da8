"""Artifacts that MLC-LLM's engines take: weights, configuration and model library, written without MLC-LLM."""
