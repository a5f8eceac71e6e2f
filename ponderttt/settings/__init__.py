"""Settings of the parts of an experiment, free of what they set up."""
