"""What can be observed of a chunk once it is scored, and of the stream so far."""
