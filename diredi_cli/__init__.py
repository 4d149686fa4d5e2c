"""The `diredi` command. One file a group of commands; what is heavy is imported by the command that needs it."""
