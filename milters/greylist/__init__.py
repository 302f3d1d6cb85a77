"""mailward-greylist."""
