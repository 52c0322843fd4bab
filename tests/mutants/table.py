"""All of them, by name."""

from tests.mutants import alarms, choosing, code, families, keys, learning, methods, saved, sights, tasks, traced

ROOMS = (methods, families, code, keys, alarms, learning, choosing, saved, sights, tasks, traced)
MUTANTS = {name: mutant for room in ROOMS for name, mutant in room.MUTANTS.items()}
