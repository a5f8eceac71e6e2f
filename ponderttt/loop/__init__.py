"""The one loop, and its parts: arms, the computations that they share, oracles, controls."""
