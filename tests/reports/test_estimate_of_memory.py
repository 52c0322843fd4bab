"""The memory that a port is said to take is that of its tensors, as counted while it runs, within a factor of 1.5."""

import gc
from dataclasses import replace
from functools import partial

import pytest
import torch
import transformers
from support.memory import TensorBytes
from support.twins import Samples, random_fine_tune, tiny_clip

from hf_bico import PortError
from hf_bico.core.chain import carry, gather
from hf_bico.core.groups import blocks
from hf_bico.core.methods import BiCo, FewShot, GradFix, Naive, Theseus, Weighted
from hf_bico.core.search import refined_search
from hf_bico.families import family_of
from hf_bico.io.hub import Hub
from hf_bico.reports import estimate
from hf_bico.reports.memory import Work, bytes_of, fitted, stages, weights_bytes
from hf_bico.reports.report import Clock
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.dry_run import dry_run
from hf_bico.workflows.in_groups import by_groups
from hf_bico.workflows.live import job_of
from hf_bico.workflows.port import run

FACTOR = 1.5


def clips(widths, depths, n, batch):
    samples = Samples.make(n, dtype=torch.float32)
    a, b = (tiny_clip(w, d, seed=s, dtype=torch.float32) for w, d, s in zip(widths, depths, (0, 4), strict=True))
    given = {"tuned": random_fine_tune(a), "calibration": samples.batches(batch), "loss": samples.loss}
    return a, b, given, {"n": n, "batch_size": batch}


def llamas(widths, depths, n, batch, *, length=16, words=200, dtype=torch.float32):
    models = []
    for seed, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        torch.manual_seed(seed)
        shape = {"hidden_size": width, "intermediate_size": 3 * width, "num_hidden_layers": depth}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
        config = transformers.LlamaConfig(vocab_size=words, max_position_embeddings=length, **shape, **heads)
        models.append(transformers.LlamaForCausalLM(config).to(dtype).eval())
    noise = torch.Generator().manual_seed(0)
    state = models[0].state_dict()
    tuned = {key: t + (0.02 * torch.randn(t.shape, generator=noise)).to(t) for key, t in state.items()}
    ids = torch.randint(3, words, (n, length), generator=noise)
    shown = [{"input_ids": part, "labels": part, "attention_mask": torch.ones_like(part)} for part in ids.split(batch)]
    more = {"n": n, "batch_size": batch, "length": length, "logits": (words, words)}
    return *models, {"tuned": tuned, "calibration": shown}, more


CASES = {
    "small": partial(clips, (32, 48), (2, 3), 20, 8),
    "many moments": partial(clips, (128, 192), (3, 3), 8, 4),
    "many rows": partial(clips, (32, 48), (4, 4), 64, 64),
    "texts": partial(llamas, (64, 96), (3, 3), 16, 16, length=64),
    "bfloat16": partial(llamas, (128, 192), (3, 3), 8, 4, dtype=torch.bfloat16),
    "many words": partial(llamas, (32, 48), (2, 2), 8, 8, length=64, words=4000),
}
METHODS = {
    "bico": BiCo(),
    "theseus": Theseus(),
    "weighted": Weighted(),
    "naive": Naive(),
    "few-shot": FewShot(steps=3, rate=1e-3),
    "few-shot that tries rates": FewShot(steps=2),
    "a path": BiCo(steps=4),
    "a search": BiCo(),
    "groups": BiCo(),
    "gradfix": GradFix(),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("case", CASES)
def test_the_estimate_is_within_a_factor_of_what_tensors_take(case, name):
    """Above the models' own weights too, which are known."""
    method = METHODS[name]
    a, b, given, more = CASES[case]()
    job = job_of(base=a, target=b, **given)
    try:
        method.check(job.pairs)
    except PortError:
        pytest.skip("it does not serve these models")
    keys = {key for ride in job.rides for key in ride.target.keys}
    more |= {"beside": sum(job.weights[key].numel() for key in keys), "search": name == "a search"}
    work = Work(job.pairs, family_of(a).sites(a), method, models=(a.state_dict(), b.state_dict()), **more)
    groups = list(blocks(job.pairs)) if name == "groups" else [slice(0, len(job.pairs))]
    said = max(stages(work, groups).values())
    gc.collect()
    with TensorBytes([tensor for each in (a, b) for tensor in (*each.parameters(), *each.buffers())]) as counted:
        if name == "groups":
            by_groups(job, method, groups, Clock())
        else:
            result = carry(job, method, gather(job, method.wanted))
        if name == "a search":
            refined_search(job.target, job.batches, more["n"], job.weights, result.delta)
    own = sum(map(weights_bytes, work.models))
    assert 1 / FACTOR < said / counted.peak < FACTOR
    assert 1 / FACTOR < (said - own) / (counted.peak - own) < FACTOR


@pytest.mark.parametrize(
    "more", [{}, {"method": "theseus", "only": "linear"}, {"method": "few-shot"}, {"alpha": "auto"}]
)
def test_of_a_port_from_files_too(world, monkeypatch, more):
    monkeypatch.setattr(estimate, "held", lambda device: 0)
    config = PortConfig("demo/ft", "demo/plus", "demo/task", **{"method": "bico", "n": 20, "eval_n": 8} | more)
    said = dry_run(config, Hub())[1].memory_bytes
    with TensorBytes() as counted:
        run(config, Hub())
    assert 1 / FACTOR < said / counted.peak < FACTOR


def wide(**changes) -> Work:
    a, b, given, more = CASES["many moments"]()
    job = job_of(base=a, target=b, **given)
    models = a.state_dict(), b.state_dict()
    return replace(Work(job.pairs, family_of(a).sites(a), BiCo(), models=models, **more), **changes)


def test_groups_are_as_few_as_fit():
    work, held = wide(), 1000
    each = list(blocks(work.pairs))
    whole, least = (max(stages(work, groups).values()) for groups in ([slice(0, len(work.pairs))], each))
    assert len(fitted(replace(work, memory=held + whole), held)) == 1
    few = fitted(replace(work, memory=held + whole - 1), held)
    assert 1 < len(few) < len(each)
    assert held + max(stages(replace(work, memory=1), few).values()) <= held + whole - 1
    assert len(fitted(work, held)) == 1
    with pytest.raises(PortError, match=r"memory= is too little: .* even with one block of layers at a time"):
        fitted(replace(work, memory=least // 2), held)
    with pytest.raises(PortError, match="gradfix looks at all layers at once"):
        fitted(replace(work, method=GradFix(), memory=least // 2), held)


@pytest.mark.parametrize(("text", "size"), [("40GB", 4e10), ("8GiB", 8 * 2**30), ("1.5 gb", 1.5e9), ("7", 7)])
def test_sizes_are_read(text, size):
    assert bytes_of(text) == size


def test_bfloat16_weights_count_half():
    a = CASES["bfloat16"]()[0]
    assert 2 * weights_bytes(a.state_dict()) == weights_bytes(a.float().state_dict())
