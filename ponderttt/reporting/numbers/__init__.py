"""Numbers of the results folder, computed from records."""
