"""A stranger's message from envelope to verdict: what the verifier and `mailward explain` both run. No I/O."""
