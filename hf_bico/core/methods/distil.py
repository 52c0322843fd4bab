"""The baseline without a port: the new base is taught by the fine-tune's own answers."""

from dataclasses import dataclass
from typing import ClassVar

from hf_bico.core.methods.few_shot import FewShot


@dataclass(frozen=True)
class Distil(FewShot):
    """AdamW towards the fine-tune's own answers on the samples, from the new base; labels are not used."""

    name: ClassVar[str] = "distil"
    citation: ClassVar[str] = "arXiv:1503.02531"
    summary: ClassVar[str] = (
        "The new base's own layers take steps of AdamW towards the answers of the fine-tune on the calibration "
        "samples. No change is carried over: this is what the fine-tune's answers alone are worth."
    )
    soft: ClassVar[bool] = True
