"""The `anysense` command line: one file per command."""
