"""The guide to the results of a study: sentences with numbers from the result files."""
