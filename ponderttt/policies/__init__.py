"""Policies: they map what was observed to an action."""
