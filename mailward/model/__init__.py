"""Values and Protocols. Standard library only; no I/O."""
