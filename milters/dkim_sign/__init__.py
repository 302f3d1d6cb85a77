"""mailward-dkim-sign."""
