"""What tests share: tiny models and worlds, a local Hub, laws and the mutants that must break them."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The repository."""
SCRIPTS = ROOT / "hub_scripts"
