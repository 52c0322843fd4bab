"""Faults of Hubs, networks and machines, and what must be so after each: `python -m tests.faults` runs all of them."""
