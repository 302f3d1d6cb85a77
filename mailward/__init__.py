"""What every Mailward program stands on; the layers are in README.md, "Architecture"."""

__version__ = "0.1.0"
