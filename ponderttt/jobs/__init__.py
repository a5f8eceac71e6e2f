"""The jobs of the workflow as functions with plain arguments; the scripts of its rules only call them."""
