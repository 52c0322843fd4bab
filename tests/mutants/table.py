"""All of them, by name."""

from tests.mutants import code, families, methods

MUTANTS = methods.MUTANTS | families.MUTANTS | code.MUTANTS
