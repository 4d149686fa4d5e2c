"""The `diredi` command, one file for each group of commands; a command imports what is heavy when it runs."""
