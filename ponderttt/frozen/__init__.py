"""The frozen pass: the backbone's one pass over a corpus, and streams that it reads live."""
