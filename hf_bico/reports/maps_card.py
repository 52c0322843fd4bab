"""The card of maps: between which bases, made of what, and how a fine-tune is ported over them."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from hf_bico.core.types import INPUTS

TEMPLATE = Path(__file__).parent / "templates" / "maps.md.j2"


def write_maps_card(folder: Path, record: dict[str, Any], repo: str | None, endpoint: str) -> None:
    """README.md beside the maps; only what lies on the Hub is named as base or dataset in its YAML.

    Args:
        endpoint: the Hub's address, for links.
    """
    source, target, calibration = record["source"], record["target"], record["calibration"]
    name = repo or "-to-".join(side["name"].split("/")[-1] for side in (source, target)) + "-maps"
    data = ModelCardData(
        model_name=name,
        base_model=None if target["local"] else target["name"],
        library_name="hf_bico",
        datasets=None if calibration["local"] else [calibration["dataset"]],
        tags=["hf-bico", "hf-bico-maps", "task-vector", record["method"]["name"]],
    )
    labelled = bool(set(record["method"]["signals"]) - {signal.value for signal in INPUTS})
    card = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        name=name,
        record=record,
        endpoint=endpoint,
        repo=repo or "FOLDER",
        labelled=labelled,
        size=sum(file["bytes"] for file in record["files"].values()),
        mean=_means(record["maps"]),
    )
    card.save(folder / "README.md")


def _means(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Of either side: the mean share of directions that the samples determine, and the mean residual."""
    found = {}
    for side in ("output", "input"):
        fits = [row[side] for row in rows if row[side]]
        if fits:
            found[side] = {
                "share": sum(fit["rank"] / fit["full"] for fit in fits) / len(fits),
                "residual": sum(fit["residual"] for fit in fits) / len(fits),
            }
    return found
