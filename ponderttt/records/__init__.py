"""Records: one row per (stream, chunk) of what an arm scored, decided and spent."""
