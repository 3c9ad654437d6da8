"""`python -m slmc`."""

from slmc.cli.main import main

main()
