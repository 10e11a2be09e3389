"""`python -m relay` is `sparkpost-relay`."""

from relay.cli import main

main()
