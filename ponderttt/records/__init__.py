"""Records: one row per chunk of a run, with what was scored, decided and spent."""
