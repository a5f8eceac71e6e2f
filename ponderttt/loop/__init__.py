"""The one loop, and everything that stands around it: arms, what they share of a chunk, searches, controls."""
