"""All of them, by name."""

from tests.mutants import (
    alarms,
    choosing,
    code,
    families,
    fleets,
    gate,
    keys,
    learning,
    memory,
    methods,
    ranks,
    saved,
    scored,
    sights,
    sounds,
    tasks,
    tokens,
    traced,
)

ROOMS = (
    methods,
    families,
    code,
    fleets,
    gate,
    keys,
    alarms,
    learning,
    choosing,
    saved,
    scored,
    sights,
    tasks,
    tokens,
    traced,
    sounds,
    ranks,
    memory,
)
MUTANTS = {name: mutant for room in ROOMS for name, mutant in room.MUTANTS.items()}
