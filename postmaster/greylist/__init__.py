"""`mailward greylist`: see and change what greylisting remembers, beside the running daemons."""
