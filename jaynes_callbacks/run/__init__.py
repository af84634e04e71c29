"""One training run under observation, whatever trains it."""
