"""`mailward explain`: judge a stored message as the milter would, and show every step of it."""
