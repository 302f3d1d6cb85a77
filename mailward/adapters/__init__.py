"""The outside world behind the Protocols of mailward.model.ports; one library a file."""
