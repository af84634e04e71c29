"""What is measured of a network in training; one instrument, one file."""
