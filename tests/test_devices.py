"""Every chain on a second device: what is left on the CPU is an error there, and the port is the one made on the CPU.

They run on a CUDA device where there is one; else on a pretended one, in a process that has it from its start.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.family_twins import CASES, gradient_step, twin
from support.tasks import KINDS, write_world
from support.twins import Samples, random_fine_tune, tiny_clip

from hf_bico import BiCo, PortError, port
from hf_bico.core.collect import Batch
from hf_bico.core.methods import method_of
from hf_bico.families.feeding import Encoded
from hf_bico.io.hub import Hub
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.port import run

PRETEND = "support.pretend"
DEVICE = "pretend:0" if PRETEND in sys.modules else "cuda:0" if torch.cuda.is_available() else None
there = pytest.mark.skipif(DEVICE is None, reason="no device but the CPU; the last test of the file pretends one")
METHODS = ("bico", "bico completion=filled", "weighted", "response", "response views=1", "blend", "theseus", "naive")


def ported(device, method):
    base, target, samples = tiny_clip(), tiny_clip(48, 3, seed=4), Samples.make(8)
    tuned = random_fine_tune(base)
    for model in (base, target):
        model.to(device)
    name, *options = method.split()
    return port(
        tuned={key: tensor.to(device) for key, tensor in tuned.items()},
        base=base,
        target=target,
        calibration=samples.batches(4),
        loss=samples.loss,
        method=method_of(name, options),
    )


@there
@pytest.mark.parametrize("method", [*METHODS, "few-shot steps=3"])
def test_live_models_there_are_ported_as_here(method):
    here, found = ported("cpu", method), ported(DEVICE, method)
    assert here.delta.keys() == found.delta.keys()
    for key, change in here.delta.items():
        torch.testing.assert_close(found.delta[key].cpu(), change, rtol=1e-6, atol=1e-9)
    found.apply_()
    assert {p.device.type for p in found.target.parameters()} == {torch.device(DEVICE).type}


@there
@pytest.mark.parametrize("name", CASES)
def test_every_family_gives_the_fine_tune_back_there(name):
    case = CASES[name]
    model = case.build()
    other, tuned, batch = twin(model), gradient_step(model, case.loss, case.samples()), case.samples()
    expected = gradient_step(other, case.loss, batch)
    for each in (model, other):
        each.to(DEVICE)
    found = port(
        tuned={key: tensor.to(DEVICE) for key, tensor in tuned.items()},
        base=model,
        target=other,
        calibration=[Batch(batch, batch)],
        loss=case.loss,
        method=BiCo(rtol=1e-11),
    ).delta
    assert found
    for key, change in found.items():
        own = other.state_dict()[key].cpu()
        torch.testing.assert_close(own + change.cpu(), expected[key], rtol=1e-6, atol=1e-7)


@there
@pytest.mark.parametrize("kind", KINDS)
def test_every_task_from_files_to_files(kind, tmp_path):
    root = write_world(tmp_path, kind)
    paths = [str(root / part) for part in ("ft", "plus", "task")]
    words = {"base": str(root / "base"), "n": 24, "eval_n": 12, "method": "weighted", "allow_regression": True}
    outs = {device: tmp_path / device[:4] for device in ("cpu", DEVICE)}
    for device, out in outs.items():
        run(PortConfig(*paths, **words, device=device, output=out), Hub())
    here, found, before = (body(folder) for folder in (*outs.values(), root / "plus"))
    apart, moved = (norm(here, other, before.keys() & here.keys()) for other in (found, before))
    assert moved > 0
    assert apart < 1e-2 * moved  # rounding in float32, where the samples hardly determine anything


def body(folder):
    tensors = load_file(folder / "model.safetensors")
    return {key.removeprefix("bert."): tensor for key, tensor in tensors.items()}


def norm(a, b, keys):
    return sum((a[key] - b[key]).square().sum() for key in keys) ** 0.5


@there
def test_the_default_with_its_choice_and_a_polish(world, tmp_path):
    out = tmp_path / "out"
    run(
        PortConfig(
            "demo/ft", "demo/plus", "demo/task", n=12, batch_size=12, eval_n=12, polish=2, device=DEVICE, output=out
        ),
        Hub(),
    )
    report = json.loads((out / "hf_bico.json").read_text())
    assert report["environment"]["device"].startswith(torch.device(DEVICE).type)


@there
def test_what_is_left_behind_is_noticed(monkeypatch, tmp_path):
    """Else none of the tests above says anything."""
    monkeypatch.setattr(Encoded, "to", lambda self, device: self)
    root = write_world(tmp_path, "tags")
    paths = [str(root / part) for part in ("ft", "plus", "task")]
    with pytest.raises((RuntimeError, PortError), match=r"tensors are on|same device"):
        run(PortConfig(*paths, base=str(root / "base"), n=8, eval_n=4, method="bico", device=DEVICE), Hub())


@pytest.mark.skipif(DEVICE is not None, reason="this is the process")
def test_all_of_this_on_a_pretended_device():
    if not hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this torch takes no devices that are written in Python")
    command = [sys.executable, "-m", "pytest", "-q", "-p", PRETEND, "-p", "no:cacheprovider", __file__]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False)
    assert done.returncode == 0, done.stdout[-6000:]
