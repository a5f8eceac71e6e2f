"""Corpora that come from datasets of the hub: rows are selected, contents fetched, duplicates found, each in many jobs."""
