"""From records to the paper's table, its figures and the guide that says how to read them."""
