"""Proof: workloads, what the answers to them are worth, and whether the recipe's promise holds on every rung."""
