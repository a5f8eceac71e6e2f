"""The study as a workflow: where files go, what a job does, which code a stage runs."""
