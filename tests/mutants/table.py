"""All of them, by name."""

from tests.mutants import alarms, code, families, keys, learning, methods

MUTANTS = methods.MUTANTS | families.MUTANTS | code.MUTANTS | keys.MUTANTS | alarms.MUTANTS | learning.MUTANTS
