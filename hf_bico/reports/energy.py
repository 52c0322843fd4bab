"""The energy of a run, where CodeCarbon is installed to measure it."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any

logger = logging.getLogger(__name__)


@contextmanager
def energy() -> Iterator[Callable[[], float | None]]:
    """Measure the energy of this process's machine while the block runs.

    Nothing is sent or asked over the network, and nothing is written: kWh need no place on a map.

    Yields:
        A function that ends the measurement and returns the kWh so far; None without CodeCarbon, or where it fails.
    """
    tracker = _tracker() if find_spec("codecarbon") else None
    known: list[float | None] = []

    def so_far() -> float | None:
        if not known:
            known.append(_stopped(tracker) if tracker is not None else None)
        return known[0]

    try:
        yield so_far
    finally:
        so_far()


def _tracker() -> Any:
    """Return a tracker that has begun; None where it cannot."""
    try:
        from codecarbon import OfflineEmissionsTracker

        logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
        tracker = OfflineEmissionsTracker(
            country_iso_code="USA", save_to_file=False, log_level="critical", tracking_mode="process"
        )
        tracker.start()
        return tracker
    except Exception as error:  # whatever it makes of this machine: a port goes on without
        logger.info("no energy is measured: %s", error)
        return None


def _stopped(tracker: Any) -> float | None:
    with suppress(Exception):
        tracker.stop()
        return float(tracker.final_emissions_data.energy_consumed)
    return None
