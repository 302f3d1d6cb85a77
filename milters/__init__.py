"""The milters, one folder a program. They never import each other."""
