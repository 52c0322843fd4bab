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
    sights,
    sounds,
    tasks,
    tokens,
    traced,
    words,
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
    sights,
    tasks,
    tokens,
    traced,
    words,
    sounds,
    ranks,
    memory,
)
MUTANTS = {name: mutant for room in ROOMS for name, mutant in room.MUTANTS.items()}
