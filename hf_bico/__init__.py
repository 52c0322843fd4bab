"""Carry what a fine-tune learned on an old base model over to a new one, without training."""

from importlib import import_module
from importlib.metadata import version

__version__ = version("hf-bico")

_PUBLIC = {"from_pretrained": "hf_bico.opening", "Opened": "hf_bico.opening", "TaskVector": "hf_bico.task_vector",
           "port": "hf_bico.api", "class_loss": "hf_bico.api", "class_scores": "hf_bico.api", "Ported": "hf_bico.api",
           "Best": "hf_bico.core.methods", "BiCo": "hf_bico.core.methods", "Naive": "hf_bico.core.methods",
           "PortError": "hf_bico.core.errors"}
__all__ = ["Best", "BiCo", "Naive", "Opened", "PortError", "Ported", "TaskVector", "class_loss", "class_scores",
           "from_pretrained", "port"]


def __getattr__(name: str):
    """Imported at first use: torch takes seconds, and `hf-bico --help` needs none of it."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'hf_bico' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
