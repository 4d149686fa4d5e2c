"""`python -m diredi_cli`, the same as `diredi`."""

from diredi_cli.main import main

main()
