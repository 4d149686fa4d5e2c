"""`python -m diredi.cli`, the same as `diredi`."""

from diredi.cli.main import main

main()
