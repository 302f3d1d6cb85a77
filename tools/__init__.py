"""What builds, packages and documents Mailward; nothing here is installed."""
