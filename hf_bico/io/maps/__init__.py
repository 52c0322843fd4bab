"""The maps between two bases as files."""
