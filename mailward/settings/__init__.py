"""What each table of mailward.toml may hold, with defaults, and reading it; the daemons and the `mailward` command share it."""
