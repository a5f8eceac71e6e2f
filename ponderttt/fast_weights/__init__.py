"""Fast weights: the state that test-time training changes."""
