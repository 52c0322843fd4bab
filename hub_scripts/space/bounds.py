"""How much a visitor may ask for, and where this page keeps what it fetches.

Imported before every library that reads the Hub: they read the environment once, when they are imported.
"""

import os
import shutil
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path

PLACE = Path(tempfile.gettempdir()) / "hf-bico-space"
"""All that is fetched and made lies here, and is thrown away when it grows too large."""
CACHES = ("HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_ASSETS_CACHE")

os.environ |= {name: str(PLACE / name.lower()) for name in CACHES}
os.environ["HF_HUB_DISABLE_IMPLICIT_TOKEN"] = "1"  # the owner's token opens no private repo to visitors


@dataclass(frozen=True)
class Bounds:
    """The most of everything; the environment variable SPACE_SECONDS sets `seconds`, and so on."""

    model_mb: int = 1000
    """Weights of each of the three models."""
    dataset_mb: int = 2000
    samples: int = 200
    """Calibration samples."""
    scored: int = 500
    """Samples that models are scored on."""
    seconds: int = 900
    """Of one check or port."""
    memory_mb: int = 12000
    kept: int = 4
    """Results that wait for a download or a push."""
    cache_mb: int = 15000
    """What may stay of what was fetched."""

    @classmethod
    def of_environment(cls) -> "Bounds":
        """Return the bounds that the environment sets."""
        said = {each.name: os.environ.get(f"SPACE_{each.name.upper()}", each.default) for each in fields(cls)}
        return cls(**{name: int(value) for name, value in said.items()})


BOUNDS = Bounds.of_environment()


def tidy() -> None:
    """Throw away what was fetched, if it is more than may stay, and the progress of ports that were stopped."""
    shutil.rmtree(PLACE / "hf_assets_cache", ignore_errors=True)
    sizes = (path.lstat().st_size for path in PLACE.rglob("*") if path.is_file() and not path.is_symlink())
    if sum(sizes) > BOUNDS.cache_mb * 10**6:
        for name in CACHES:
            shutil.rmtree(PLACE / name.lower(), ignore_errors=True)
