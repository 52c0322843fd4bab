"""Whether and how a port is trained further."""

from collections.abc import Mapping

from hf_bico.core.errors import PortError, setting
from hf_bico.core.method import Method
from hf_bico.core.methods import FewShot
from hf_bico.core.methods.polished import Polish, Polished
from hf_bico.families import PurposeKind
from hf_bico.families.heads import HeadKind
from hf_bico.io.models import PortModels
from hf_bico.workflows.choices import PolishChoices

LANGUAGE = frozenset(
    {PurposeKind.CAUSAL_LM, PurposeKind.SEQ2SEQ, PurposeKind.MASKED_LM, PurposeKind.SPEECH, PurposeKind.IMAGE_TEXT}
)
"""Models of which a LoRA is trained unless something else is said."""
RANK = 8
"""Its rank."""


def polish_of(config: PolishChoices, models: PortModels) -> Polish:
    """Return how a port is trained further; of a language model a LoRA, unless something else is said.

    Raises:
        PortError: choices that do not go together, or a model that gives no answers.
    """
    rank = config.polish_rank
    if config.polish and models.head is HeadKind.NONE:
        raise PortError(
            f"a model of features gives no answers that {setting('polish')} could train towards: leave it out, or name "
            f"the samples' classes with {setting('columns')} label=…"
        )
    if config.polish and rank is None and config.scales is None and models.purpose.kind in LANGUAGE:
        rank = RANK
    return Polish(config.polish, rank, config.scales)


def with_polish(methods: Mapping[str, Method], polish: Polish) -> dict[str, Method]:
    """Return the methods, each that trains nothing followed by its port, polished, if there is a polish."""
    found: dict[str, Method] = {}
    for name, method in methods.items():
        found[name] = method
        if polish.steps and not isinstance(method, FewShot):
            found[f"{name} + polish"] = Polished(method, polish)
    return found
