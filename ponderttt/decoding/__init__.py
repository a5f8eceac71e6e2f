"""Decoding: continue texts with a cache of keys and values, with or without fast weights."""
