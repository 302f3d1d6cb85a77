"""The `mailward` command, one module a sub-command."""
