"""Carry what a fine-tune learned on an old base model over to a new one, without training."""

from importlib import import_module

_METHODS = (
    "Auto",
    "Best",
    "BiCo",
    "Blend",
    "Distil",
    "FewShot",
    "GradFix",
    "GradientOnly",
    "InputOnly",
    "Naive",
    "OutputOnly",
    "Response",
    "Theseus",
    "TransFusion",
    "Weighted",
)
_PUBLIC = dict.fromkeys(_METHODS, "hf_bico.core.methods") | {
    "Polish": "hf_bico.core.methods.polished",
    "port": "hf_bico.workflows.live",
    "Ported": "hf_bico.workflows.ported",
    "class_loss": "hf_bico.workflows.live",
    "class_scores": "hf_bico.workflows.live",
    "Batch": "hf_bico.core.collect",
    "PortError": "hf_bico.core.errors",
    "PortConfig": "hf_bico.workflows.config",
    "PortCallback": "hf_bico.workflows.trainer",
    "warm_start": "hf_bico.workflows.trainer",
    "evaluate": "hf_bico.workflows.evaluate",
    "Evaluated": "hf_bico.workflows.evaluate",
    "from_pretrained": "hf_bico.io.changes.opening",
    "Opened": "hf_bico.io.changes.opening",
    "TaskVector": "hf_bico.io.changes.vectors",
}
__all__ = [
    "Auto",
    "Batch",
    "Best",
    "BiCo",
    "Blend",
    "Distil",
    "Evaluated",
    "FewShot",
    "GradFix",
    "GradientOnly",
    "InputOnly",
    "Naive",
    "Opened",
    "OutputOnly",
    "Polish",
    "PortCallback",
    "PortConfig",
    "PortError",
    "Ported",
    "Response",
    "TaskVector",
    "Theseus",
    "TransFusion",
    "Weighted",
    "class_loss",
    "class_scores",
    "evaluate",
    "from_pretrained",
    "port",
    "warm_start",
]


def __getattr__(name: str):
    """Return a public name, imported at first use: torch takes seconds, and `hf-bico --help` needs none of it."""
    if name == "__version__":
        from importlib.metadata import version  # takes longer than all else that is imported here

        return version("hf-bico")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'hf_bico' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    """Return the public names, those that are not imported yet too."""
    return sorted({*globals(), *__all__, "__version__"})
