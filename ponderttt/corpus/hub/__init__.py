"""Corpora from datasets of the hub: select rows, fetch contents and find duplicates, each in many jobs."""
