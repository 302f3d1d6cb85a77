"""What each table of mailward.toml may hold, with defaults. The daemons and the `mailward` command both read them."""
