"""Result files, guide and figures, computed from records."""
