"""Where a runner runs: this machine, another over SSH, a phone."""
