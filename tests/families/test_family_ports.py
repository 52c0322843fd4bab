"""Ports between models of every family whose right answer is known; and ports across families."""

import copy
import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from support.family_twins import CASES, END, GROUPED, LENGTH, VISION, WORDS, Case, gradient_step, plain, turned, twin
from support.twins import distance
from torch import Tensor, nn

from hf_bico import BiCo, port
from hf_bico.core.chain import carry, gather
from hf_bico.core.collect import Batch, Side, collect
from hf_bico.core.difference import Difference
from hf_bico.core.errors import PortError
from hf_bico.core.method import Job
from hf_bico.core.moments import Statistics
from hf_bico.core.pairing import pair_sites
from hf_bico.core.types import Pair, Signal, Wanted
from hf_bico.families import family_of

EXACT = BiCo(rtol=1e-11)
"""For float64 models: only what float64 itself loses is cut."""
WATCHED = (Signal.INPUT, Signal.OUTPUT_GRADIENT)
TEXTS = [name for name, case in CASES.items() if case.kind not in ("image", "contrastive") and name != "clip-text"]


def carried(
    case: Case, model: nn.Module, other: nn.Module, tuned: dict[str, Tensor], *, every: bool = False
) -> dict[str, Tensor]:
    """What `port` makes of a fine-tune; or the same with the towers that need not run."""
    batch = case.samples()
    if not every:
        return port(
            tuned=tuned, base=model, target=other, calibration=[Batch(batch, batch)], loss=case.loss, method=EXACT
        ).delta
    pairs = pair_sites(*(family_of(each).sites(each, every=True) for each in (model, other)))
    job = Job(
        Difference(tuned, model.state_dict()),
        pairs,
        Side(model, case.loss),
        Side(other, case.loss),
        other.state_dict(),
        lambda: [Batch(batch, batch)],
    )
    return carry(job, EXACT, gather(job, EXACT.wanted)).delta


@pytest.mark.parametrize("rotate", [False, True], ids=["permuted", "rotated"])
@pytest.mark.parametrize("name", CASES)
def test_twin_gives_the_fine_tune_back(name, rotate):
    case, every = CASES[name], name in ("clip", "siglip")
    model = plain(case.build()) if rotate else case.build()
    other, tuned = twin(model, rotate=rotate), gradient_step(model, case.loss, case.samples(), every=every)
    with torch.no_grad():
        assert torch.allclose(case.logits(model, case.samples(4)), case.logits(other, case.samples(4)))
    delta = carried(case, model, other, tuned, every=every)
    change = {key: tuned[key] - tensor for key, tensor in model.state_dict().items()}
    expected = turned(model, change, rotate=rotate)
    assert delta.keys() == {s.key for site in family_of(model).sites(model, every=every) for s in site.slices}
    assert distance(delta, {key: expected[key] for key in delta}) < 1e-9


def moments(
    source: nn.Module, target: nn.Module, case: Case, batches: list[Batch]
) -> dict[tuple[Pair, Signal], Tensor]:
    pairs = pair_sites(*(family_of(model).sites(model) for model in (source, target)))
    sides, empty = (Side(source, case.loss), Side(target, case.loss)), Statistics(pairs, Wanted(frozenset(WATCHED)))
    statistics = collect(*sides, pairs, batches, empty)
    return {(pair, signal): statistics[pair, signal].cross for pair in pairs for signal in WATCHED}


def apart(a: dict, b: dict) -> float:
    """The largest relative difference of two sets of moments."""
    assert a.keys() == b.keys()
    return max(float((a[key] - b[key]).norm() / b[key].norm()) for key in a)


@pytest.mark.parametrize("name", CASES)
def test_checkpointing_and_eager_attention_show_the_same(name):
    case = CASES[name]
    model, other = case.build(), case.build(seed=1)
    batches = [Batch(case.samples(8), case.samples(8))]
    expected = moments(model, other, case, batches)
    if other.supports_gradient_checkpointing:  # MPNet does not
        other.activation_checkpointing_enable()
    assert apart(moments(model.train(), other.train(), case, batches), expected) < 1e-12
    if not name.startswith("timm"):  # which chooses for itself
        other.set_attn_implementation("eager")  # its softmax is in float32
        assert apart(moments(model, other, case, batches), expected) < 1e-4


@pytest.mark.parametrize("name", CASES)
def test_bfloat16_weights_show_nearly_the_same(name):
    case = CASES[name]
    model = case.build(exact=False)
    rough = copy.deepcopy(model).bfloat16()
    assert family_of(rough).sites(rough) == family_of(model).sites(model)
    fine, coarse = case.samples(8, dtype=torch.float32), case.samples(8, dtype=torch.bfloat16)
    expected = moments(model, model, case, [Batch(fine, fine)])
    assert apart(moments(model, rough, case, [Batch(fine, coarse)]), expected) < 0.2
    assert all(cross.dtype == torch.float32 for cross in expected.values())


@pytest.mark.parametrize("name", TEXTS)
def test_padding_changes_no_moment(name):
    case = CASES[name]
    model, other = case.build(), case.build(seed=1)
    (ids, labels), short = case.samples(12), LENGTH - 2
    cut = torch.cat([ids[6:, : short - 1], torch.full((6, 1), END)], dim=1)
    alone = [(ids[:6], labels[:6]), (cut, labels[6:])]
    mask = torch.ones(12, LENGTH, dtype=torch.long)
    mask[6:, short:] = 0
    padded = (torch.cat([ids[:6], F.pad(cut, (0, LENGTH - short))]), labels, mask)
    together = torch.diag_embed(mask.double())
    meeting = {"text": together} | ({"labels": together} if name == "t5-classifier" else {})
    got = moments(model, other, case, [Batch(padded, padded, meeting)])
    assert apart(got, moments(model, other, case, [Batch(each, each) for each in alone])) < 1e-9
    assert apart(moments(model, other, case, [Batch(padded, padded)]), got) > 1e-3  # as if pads were text


WIDE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
ACROSS = [
    ("vit", "clip-vision", WIDE),
    ("clip-vision", "dinov2", WIDE),
    ("dinov2", "vit", WIDE),
    ("vit", "deit", WIDE),
    ("dinov2-registers", "siglip-classifier", {}),
    ("deit", "timm", {}),
    ("timm", "dinov2-registers", WIDE),
    ("dinov2-swiglu", "timm-packed", {}),
    ("timm-packed", "dinov2-swiglu", WIDE),
    ("bert", "roberta", WIDE),
    ("roberta", "bert", WIDE),
    ("roberta", "distilbert", {}),
    ("distilbert", "bert", WIDE),
    ("bert", "mpnet", WIDE),
    ("mpnet", "roberta", WIDE),
    ("llama", "qwen2", WIDE),
    ("qwen2", "llama", WIDE),
    ("llama", "qwen3", WIDE),
    ("qwen3", "mistral", WIDE),
    ("mistral", "llama", WIDE),
    ("mistral", "gemma", WIDE),
    ("gemma2", "gemma3", WIDE),
    ("t5-gated", "t5-gated", {"d_model": 32, "num_layers": 3}),
]


@pytest.mark.parametrize(("source", "target", "shape"), ACROSS, ids=str)
def test_ports_across_families(source, target, shape):
    """To another family, width and depth, with fewer samples than directions; all roles find their partners."""
    a, b = CASES[source], CASES[target]
    model, other = a.build(exact=False), b.build(exact=False, **shape)
    tuned = {key: tensor + 0.01 for key, tensor in model.state_dict().items()}
    batches = [Batch(a.samples(8, dtype=torch.float32), b.samples(8, dtype=torch.float32))]
    ported = port(tuned=tuned, base=model, target=other, calibration=batches, loss=(a.loss, b.loss), method=BiCo())
    blocks = {s.key for site in family_of(other).sites(other) if site.depth is not None for s in site.slices}
    unbiased = {key for key in blocks if key.endswith("bias") and key not in ported.delta}
    beside = {ride.target for ride in ported.record.beside}
    assert ported.delta.keys() <= blocks | beside | {"visual_projection.weight"}
    assert blocks - ported.delta.keys() == unbiased
    assert not unbiased or (source, target) == ("llama", "qwen2")
    left = {entry.key for entry in ported.account.left if "no bias" in entry.reason}
    assert bool(left) == ((source, target) == ("qwen2", "llama")) and all(key.endswith("bias") for key in left)
    assert all(change.norm() > 0 and change.isfinite().all() for change in ported.delta.values())


def test_images_need_not_be_of_the_size_in_the_config():
    """DINOv2's configs say 518 and its processors 224: grids are those of what a model sees."""
    case = CASES["vit"]
    images, labels = case.samples(8)
    batch = Batch((images, labels), (F.interpolate(images, size=24), labels))
    model, other = case.build(), CASES["dinov2"].build(image_size=24)
    expected = moments(model, other, case, [batch])
    other.config.image_size = 40
    got = moments(model, other, case, [batch])
    assert all(torch.equal(*each) for each in zip(got.values(), expected.values(), strict=True))


def test_blocks_of_another_shape_do_not_pair():
    for source, target, why in (
        ("dinov2-swiglu", "vit", "MLP gate"),
        ("bert", "modernbert", "MLP gate"),
        ("t5", "t5-gated", "MLP gate"),
    ):
        a, b = CASES[source].build(), CASES[target].build()
        with pytest.raises(PortError, match=why):
            pair_sites(family_of(a).sites(a), family_of(b).sites(b))


IN_OTHER_CLOTHES = {
    ("vit", "dinov2"): (
        VISION | {"intermediate_size": 48, "layer_norm_eps": 1e-6},
        {
            r"^vit\.layers": "dinov2.encoder.layer",
            r"^vit\.": "dinov2.",
            "layernorm_before": "norm1",
            "layernorm_after": "norm2",
        },
    ),
    ("vit", "timm"): (
        VISION | {"intermediate_size": 36, "layer_norm_eps": 1e-6},
        {
            r"^vit\.layers": "timm_model.blocks",
            r"^vit\.(embeddings\.)?": "timm_model.",
            "layernorm_before": "norm1",
            "layernorm_after": "norm2",
            "position_embeddings": "pos_embed",
            r"patch_embeddings\.projection": "patch_embed.proj",
            r"layernorm\.": "norm.",
            r"^classifier": "timm_model.head",
        },
    ),
    ("llama", "mistral"): (GROUPED | {"tie_word_embeddings": True}, {}),
    ("llama", "qwen2"): (GROUPED, {}),
    ("bert", "roberta"): (
        {},
        {r"^bert\.pooler": "classifier", r"^classifier\.": "classifier.out_proj.", r"^bert": "roberta"},
    ),
    ("bert", "mpnet"): (
        {},
        {r"^bert": "mpnet", r"attention\.output\.LayerNorm": "attention.LayerNorm", "token_type": "word"},
    ),
}
"""(family, another that can do the same): how the first is built, and its other tensors' names in the second."""


def in_other_clothes(model: nn.Module, target: Case, names: dict[str, str]) -> nn.Module:
    """The same function as a model of another family."""
    other = target.build()
    state = {
        key: torch.ones_like(tensor) if "lambda" in key else torch.zeros_like(tensor)
        for key, tensor in other.state_dict().items()
    }
    sites = [(*family_of(each).sites(each), *family_of(each).head_sites(each)) for each in (model, other)]
    for a, b in pair_sites(*sites):
        for s, t in zip(a.slices, b.slices, strict=False):
            own = s.of(model.state_dict()[s.key])
            t.of(state[t.key]).copy_(F.pad(own, (0, t.of(state[t.key]).shape[-1] - own.shape[-1])))
    moved = {s.key for site in sites[0] for s in site.slices}
    for key, tensor in model.state_dict().items():
        name = key
        for pattern, new in names.items():
            name = re.sub(pattern, new, name)
        if key in moved:
            continue
        if "position_embeddings" in name and name.startswith(("roberta", "mpnet")):
            first = 1 + next(m for m in other.modules() if hasattr(m, "position_embeddings")).padding_idx
            state[name][first:] = tensor[:-first]  # after the padding's own
        elif "token_type" in key and "word" in name:
            state[name] += tensor[0]  # every token is of the first type
        else:
            state[name] += tensor.reshape(state[name].shape)
    other.load_state_dict(state)
    return other


@pytest.mark.parametrize(("source", "target"), IN_OTHER_CLOTHES)
def test_the_same_function_in_another_family_gives_the_fine_tune_back(source, target):
    """What q, k and v are, where a fused weight's parts lie, what is a gate: both families must say the same."""
    built, names = IN_OTHER_CLOTHES[source, target]
    a, b = replace(CASES[source], options=CASES[source].options | built), CASES[target]
    model = a.build()
    other = in_other_clothes(model, b, names)
    with torch.no_grad():
        assert torch.allclose(a.logits(model, a.samples(4)), b.logits(other, b.samples(4)))
    tuned = gradient_step(model, a.loss, a.samples())
    expected = {key: torch.zeros_like(tensor) for key, tensor in other.state_dict().items()}
    pairs = pair_sites(family_of(model).sites(model), family_of(other).sites(other))
    for pair in pairs:
        for s, t in zip(pair.base.slices, pair.target.slices, strict=False):
            t.of(expected[t.key]).copy_(s.of(tuned[s.key]) - s.of(model.state_dict()[s.key]))
    ported = port(
        tuned=tuned,
        base=model,
        target=twin(other),
        calibration=[Batch(a.samples(), b.samples())],
        loss=(a.loss, b.loss),
        method=EXACT,
    )
    there = turned(other, expected)
    assert distance(ported.delta, {key: there[key] for key in ported.delta}) < 1e-9


def test_ids_are_words():
    assert CASES["bert"].samples()[0].max() < WORDS
