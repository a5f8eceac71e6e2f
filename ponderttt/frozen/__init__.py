"""The frozen pass: what the backbone says of every chunk, computed once."""
