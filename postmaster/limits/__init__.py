"""`mailward limits`: see and change what mailward-policyd counts, beside the running daemons."""
