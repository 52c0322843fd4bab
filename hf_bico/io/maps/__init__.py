"""Maps between two bases, stored in files."""
