"""Local policy, pure: what this installation does with what it knows."""
