"""The features that policies see of a scored chunk and of the stream so far."""
