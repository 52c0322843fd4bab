"""Where the world keeps what it makes: committed weights, what is trained again when it is missing, and the docs."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The repository."""
WEIGHTS = ROOT / "hub_scripts" / "world" / "weights"
CACHE = ROOT / ".world"
DOCS = ROOT / "docs"
