"""Which model types of transformers are ported: a tiny random pair of every type is, and docs/model_types.md says how.

`python -m hub_scripts.world.zoo.served [TYPE …]` writes the page, or prints the rows of some types.
"""

from __future__ import annotations

import gc
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hf_bico import BiCo, Naive, PortError, port
from hf_bico.core.chain import gather
from hf_bico.families import Family, family_of
from hf_bico.families.purposes import TASKS, of_config
from hf_bico.families.traced import Traced
from hf_bico.families.traced.copies import random_model, shrunk
from hf_bico.families.traced.examples import SAMPLES, Example, examples
from hf_bico.families.traced.reading import read, running
from hf_bico.families.traced.watch import tensors
from hf_bico.workflows.live import job_of

PAGE = Path(__file__).parents[3] / "docs" / "model_types.md"
FIRST = """
bert roberta xlm-roberta distilbert mpnet deberta-v2 albert electra modernbert nomic_bert t5 mt5 bart marian gpt2
gpt_neox gpt_bigcode bloom falcon opt phi phi3 llama mistral mixtral qwen2 qwen3 qwen2_moe qwen3_moe gemma gemma2 gemma3
gemma3_text deepseek_v3 olmo2 granite cohere stablelm smollm3 vit deit dinov2 beit swin convnext resnet clip siglip
whisper wav2vec2 hubert llava qwen2_vl qwen2_5_vl qwen3_vl blip idefics3
"""
"""Types of high use."""
MORE = """
arcee bamba big_bird bitnet blip-2 camembert canine cohere2 convbert convnextv2 cvt data2vec-audio data2vec-text
data2vec-vision deberta dinov2_with_registers dinov3_vit efficientnet ernie ernie4_5 esm eurobert exaone4
falcon_h1 falcon_mamba flaubert fnet focalnet funnel glm glm4 gpt_neo gpt_oss gptj granitemoe helium hunyuan_v1_dense
ijepa idefics2 internvl jamba layoutlm led lfm2 lilt longformer luke m2m_100 mamba mamba2 mbart megatron-bert
metaclip_2 ministral3 mistral3 mobilebert mobilenet_v2 mobilevit mpt mra mvp nemotron nystromformer olmo olmo3
paligemma pegasus persimmon plbart poolformer pvt_v2 regnet rembert roberta-prelayernorm roformer rwkv seed_oss
segformer sew siglip2 smolvlm speech_to_text squeezebert starcoder2 swinv2 switch_transformers umt5 unispeech vit_msn
wavlm xglm xlm xlm-roberta-xl xlnet xmod yoso zamba2
"""
TYPES = tuple(dict.fromkeys((FIRST + MORE).split()))
MAPPINGS = (
    "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
    "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES",
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
    "MODEL_FOR_CTC_MAPPING_NAMES",
    "MODEL_MAPPING_NAMES",
)
"""transformers' own tables of what a type can be for; the first that has a type gives its class here."""
WIDTHS = ((2, 8), (2, 16), (3, 16), (2, 20))
"""Blocks and least widths of heads of the copies that are tried."""


@dataclass(frozen=True)
class Row:
    """What was found of a model type."""

    kind: str
    cls: str = ""
    by: str = ""
    """table, traced, or refused."""
    roles: str = ""
    law: str = ""
    share: float | None = None
    """Of the parameters, that move by maps or along with them."""
    result: str = ""
    """What came of a port between two widths."""
    tasks: tuple[str, ...] = ()
    """The Hub's names of what classes of the type can be ported for."""
    roles_of: tuple[str, ...] = ()
    """Every tower's roles in blocks: types with the same ones pair."""

    def line(self, group: str | None = None) -> str:
        """Return the row as the page has it, with the letter of the types that it pairs with."""
        share = "" if self.share is None else f"{100 * self.share:.0f} %"
        cells = [f"`{self.kind}`", self.cls, self.by, self.roles, self.law, share, self.result, ", ".join(self.tasks)]
        return f"| {' | '.join(cells if group is None else [*cells, group])} |"


def class_of(kind: str) -> tuple[type[nn.Module], Any] | None:
    """Return a model type's class and default config; None if this transformers has no such type."""
    import transformers
    from transformers.models.auto import modeling_auto
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    if kind not in CONFIG_MAPPING_NAMES:
        return None
    for name in MAPPINGS:
        found = getattr(modeling_auto, name).get(kind)
        names = found if isinstance(found, list | tuple) else [found]
        cls = next((getattr(transformers, each, None) for each in names if each), None)
        if cls is not None:
            return cls, getattr(transformers, CONFIG_MAPPING_NAMES[kind])()
    return None


def surveyed(kind: str) -> Row | None:
    """Return what becomes of a model type; None if this transformers does not have it, or builds none by default."""
    found = class_of(kind)
    if found is None:
        return None
    cls, config = found
    try:
        with torch.device("meta"):
            model = cls(config)
    except Exception:  # a config that is meant to be filled in
        return None
    try:
        return _ported(kind, model)
    except PortError as error:
        return Row(kind, cls.__name__, "refused", result=str(error).partition(";")[0])
    except Exception as error:  # shown on the page, so that it is seen
        return Row(
            kind, cls.__name__, "traceback", result=f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        )


def _ported(kind: str, model: nn.Module) -> Row:
    """Return what comes of a port of a model type; the model is on the meta device.

    Raises:
        PortError: it is refused.
    """
    family = family_of(model)
    sites = family.sites(model)
    moved = {s.key for site in (*sites, *family.head_sites(model)) for s in site.slices}
    moved |= {key for rider in family.riders(model) for key in rider.keys} | {gain.key for gain in family.gains(model)}
    sizes = {key: p.numel() for key, p in model.named_parameters()}
    share = sum(size for key, size in sizes.items() if key in moved) / sum(sizes.values())
    by = "traced" if isinstance(family, Traced) else "table"
    result = _result(type(model), model.config)
    known = _known(family, model, sites)
    return Row(kind, type(model).__name__, by, *known, share, result, tasks_of(kind), _signature(family, model, sites))


def tasks_of(kind: str) -> tuple[str, ...]:
    """Return the Hub's names of the tasks that a type has classes for, of those that are served."""
    from transformers import CONFIG_MAPPING
    from transformers.models.auto import modeling_auto

    found = set()
    for name in vars(modeling_auto):
        if re.fullmatch(r"MODEL(_FOR_\w+)?_MAPPING_NAMES", name):
            given = getattr(modeling_auto, name).get(kind, ())
            for cls in given if isinstance(given, list | tuple) else [given]:
                with suppress(PortError):
                    found.add(TASKS[of_config(CONFIG_MAPPING[kind](architectures=[cls])).kind])
    return tuple(task for task in dict.fromkeys(TASKS.values()) if task in found)


def _signature(family: Family, model: nn.Module, sites: tuple[Any, ...]) -> tuple[str, ...]:
    """Return every tower's roles in blocks, with what it reads, and what goes into the model."""
    towers: dict[str, set[str]] = {}
    for site in sites:
        if site.depth is not None:
            towers.setdefault(f"{site.tower} {'texts' if site.tokens.sequence else 'rows'}".strip(), set()).add(
                site.role
            )
    found = (f"{tower}: {', '.join(sorted(roles))}" for tower, roles in sorted(towers.items()))
    return (str(getattr(model, "main_input_name", "")), *found)


def _known(family: Family, model: nn.Module, sites: tuple[Any, ...]) -> tuple[str, str]:
    """Return how many sites have a role, and whether the permutation law holds of the roles that the trace claims."""
    try:
        reading = family.reading(model) if isinstance(family, Traced) else read(model)
    except PortError:
        return f"{len(sites)} of {len(sites)}", "not checked"
    known = reading.roles if isinstance(family, Traced) else {site.role for site in sites}
    law = "holds" if reading.kept and not reading.refuted else "" if not reading.refuted else "refuted in part"
    counted = sum(site.role in known or site.known or site.expert is not None for site in sites)
    return f"{counted} of {len(sites)}", law


def _result(cls: type[nn.Module], config: Any) -> str:
    """Return what comes of a port between tiny models of two widths, and of the statistics that BiCo wants of them."""
    built = list(_built(cls, config))
    if not built:
        return "no tiny pair runs"
    (base, shown), (target, theirs) = built[0], built[-1]
    if len(built) == 1:
        target = random_model(cls, shrunk(config, *WIDTHS[0]), seed=1)
    tuned = {key: tensor + 0.01 * torch.rand_like(tensor.float()) for key, tensor in base.state_dict().items()}
    given = {"tuned": tuned, "base": base, "target": target, "calibration": [(torch.zeros(SAMPLES),)]}
    try:
        job = job_of(**given, loss=(_loss(shown), _loss(theirs)))
        gather(job, BiCo().wanted)
        moved = len(port(**given, loss=(_loss(shown), _loss(theirs)), method=Naive(), head="own").moved)
    except PortError as error:
        return str(error)[:160]
    return f"{moved} maps, {'two widths' if len(built) > 1 else 'one width'}"


def _built(cls: type[nn.Module], config: Any) -> Iterator[tuple[nn.Module, list[Example]]]:
    """Yield two tiny models of other shapes, or one, with what they take."""
    shapes = None
    for number, size in enumerate(WIDTHS):
        try:
            model = random_model(cls, shrunk(config, *size), seed=number)
        except Exception:  # whatever an architecture says of sizes that it does not take
            continue
        shown, _ = running(model, examples(model))
        own = [tuple(p.shape) for p in model.parameters()]
        if shown and own != shapes:
            yield model, shown
            if shapes is not None:
                return
            shapes = own


def _loss(shown: list[Example]) -> Any:
    """Return a loss that is the size of all outputs of a model on the examples that it takes."""

    def loss(model: nn.Module, batch: object) -> Tensor:
        return sum(
            (x.float().square().mean() for each in shown for x in tensors(each.run(model)) if x.requires_grad),
            torch.zeros(()),
        )

    return loss


def groups(rows: list[Row]) -> dict[str, list[str]]:
    """Return the types that pair with each other, by the number of their group; the largest groups first."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        if row.roles_of:
            alike.setdefault(row.roles_of, []).append(row.kind)
    large = sorted((kinds for kinds in alike.values() if len(kinds) > 1), key=len, reverse=True)
    return {str(number): kinds for number, kinds in enumerate(large, 1)}


def page(rows: list[Row]) -> str:
    """Return the page of all rows."""
    alike = groups(rows)
    group = {kind: number for number, kinds in alike.items() for kind in kinds}
    served = sum(" maps, " in row.result for row in rows)
    total = len(rows)
    tables, refused = (sum(row.by == by for row in rows) for by in ("table", "refused"))
    return f"""# Model types

Written by `python -m hub_scripts.world.zoo.served`, which ports a tiny random pair of every type between two widths,
where its config can be made narrower, else between two models of one. {served} of {total} types are served;
{tables} have a table. {refused} are refused in one line, and {total - served - refused} are taken, but the port of the
tiny pair ends in the line that is shown.

*Roles* counts the linear maps in blocks of the type's default config whose role is known; the others pair by name.
*Law*: permuting the units of every MLP of a tiny copy, as the roles say, changes nothing; it is refuted where a norm of
units or a convolution lies between, and there the layers pair by name. *Moves* is the share of the parameters of the
default config that moves, by maps of its own or along with them. *Tasks* are those that the type has a class for and
that a port is scored by. Types of one *group* have the same roles in their blocks and pair with each other; every type
pairs with itself.

{"".join(f"- group {number}: {', '.join(f'`{kind}`' for kind in kinds)}{chr(10)}" for number, kinds in alike.items())}
| type | class | by | roles | law | moves | a port between two widths | tasks | group |
|---|---|---|---|---|---|---|---|---|
""" + "".join(f"{row.line(group.get(row.kind, ''))}\n" for row in rows)


def rows_of(kinds: list[str]) -> Iterator[Row]:
    """Yield the rows of the types that this transformers has, and say each on the way."""
    for kind in kinds:
        row = surveyed(kind)
        gc.collect()  # tiny models hang on to their passes
        if row is not None:
            print(row.line(), file=sys.stderr, flush=True)
            yield row


def main() -> None:
    """Write the page; with types as arguments, print their rows alone."""
    import transformers

    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    rows = list(rows_of(sys.argv[1:] or list(TYPES)))
    if not sys.argv[1:]:
        PAGE.write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
