"""The tests, in the rooms of what they test; what they share is in `support/`, what they must notice in `mutants/`."""
