"""What turns a workload into a result with a given artifact: the contract, and those that run on a computer."""
