"""What was found: columns with units, as tables on disk and as text.  Imports no torch."""
