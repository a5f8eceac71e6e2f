"""Frozen language models: where they come from, how they read tokens, what they predict."""
