"""Proximal policy optimisation under a budget: pure functions over [time, environments] arrays."""
