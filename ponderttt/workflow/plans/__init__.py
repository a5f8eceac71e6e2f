"""What the rules of the workflow need to know of a study: parameters, inputs beyond the obvious, resources."""
