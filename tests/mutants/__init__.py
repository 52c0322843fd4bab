"""Wrong implementations, each with the laws and the tests that must notice it: `python -m tests.mutants`."""
