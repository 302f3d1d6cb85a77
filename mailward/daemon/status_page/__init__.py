"""The status page: what the supervisor knows, as one document without anything from elsewhere."""
