"""The guide to a study's results: sentences whose every number is a table's."""
