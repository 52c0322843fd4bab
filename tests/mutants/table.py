"""All of them, by name."""

from tests.mutants import alarms, choosing, code, families, keys, learning, methods, tasks

ROOMS = (methods, families, code, keys, alarms, learning, choosing, tasks)
MUTANTS = {name: mutant for room in ROOMS for name, mutant in room.MUTANTS.items()}
