"""Decoding: continue texts with a key–value cache, with or without fast weights."""
