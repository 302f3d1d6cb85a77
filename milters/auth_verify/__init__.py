"""mailward-auth-verify."""
