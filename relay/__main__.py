"""`python -m relay` is the same as `relay`."""

from relay.cli import main

main()
