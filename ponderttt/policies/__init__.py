"""Policies: from what has been observed to an action."""
