"""CLIP's text tower, where the fine-tune changed it: every sample brings its own class's prompt."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.refusals import rewrite
from support.twins import distance
from support.world import TEMPLATES

from hf_bico.families import FAMILIES, LIBRARIES
from hf_bico.io.hub import Hub
from hf_bico.tasks.asked import zero_shot_head
from hf_bico.tasks.batches import Batches
from hf_bico.tasks.objectives import ZeroShot
from hf_bico.tasks.samples import draw, read_task
from hf_bico.tasks.splits import HubDataset
from hf_bico.tasks.strategies import Calibration
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.port import run

LIBRARY, FAMILY = LIBRARIES[0], FAMILIES[0]
WEIGHTS = "open_clip_model.safetensors"


@pytest.fixture(scope="module")
def fine_tune(world, tmp_path_factory):
    """`base` after a step of gradient descent in its text tower: a τ inside the samples' span."""
    dataset = HubDataset(Hub(), Hub().resolve(str(world / "task"), "dataset"))
    split = dataset.split("train")
    task = read_task(dataset, split, {}, None)
    side = LIBRARY.load(world / "base", "cpu")
    head = zero_shot_head(LIBRARY, side, task.class_names, task.templates)
    prompts = tuple(TEMPLATES[0].replace("{c}", "{}").format(name) for name in task.class_names)
    objective = ZeroShot(LIBRARY, side, head, prompts)
    samples = draw(split, "train", task, Calibration(60, None, None, 0), torch.zeros(60).numpy()).samples
    model = side.model
    keys = {s.key for site in FAMILY.sites(model, every=True) if site.tower == "text" for s in site.slices}
    parameters = {key: p for key, p in model.named_parameters() if key in keys}
    batch = next(iter(Batches(samples, (objective, objective), 60))).target
    gradients = torch.autograd.grad(objective.loss(model, batch), list(parameters.values()))
    change = dict(zip(parameters, gradients, strict=True))
    state = load_file(world / "base" / WEIGHTS)
    size = sum(float(state[key].norm()) ** 2 for key in keys) / sum(float(g.norm()) ** 2 for g in change.values())
    change = {key: -0.05 * size**0.5 * g for key, g in change.items()}
    folder = tmp_path_factory.mktemp("text") / "ft"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text((world / "base" / "open_clip_config.json").read_text())
    save_file({key: tensor + change.get(key, 0) for key, tensor in state.items()}, folder / WEIGHTS)
    return folder, change


def test_a_change_of_the_text_tower_moves(world, fine_tune, tmp_path):
    """To the base but for its scale: maps are the identity on what the samples determine, so τ comes back."""
    folder, change = fine_tune
    same = shutil.copytree(world / "base", tmp_path / "same")
    rewrite(same, lambda tensors: tensors["logit_scale"].add_(1e-4))
    outcome = run(
        PortConfig(
            str(folder),
            str(same),
            str(world / "task"),
            base=str(world / "base"),
            n=60,
            method="bico",
            method_options=("rtol=1e-7",),
            allow_regression=True,  # a single step from random weights answers at chance
            output=tmp_path / "out",
        ),
        Hub(),
    )
    before, after = load_file(same / WEIGHTS), load_file(tmp_path / "out" / WEIGHTS)
    moved = {key: after[key] - before[key] for key in before if not torch.equal(after[key], before[key])}
    text = {key: tensor for key, tensor in moved.items() if not key.startswith("visual")}
    assert (
        text.keys() <= change.keys()
        and distance({key: moved.get(key, torch.zeros(())) for key in change}, change) < 0.05
    )
    assert moved.keys() == text.keys()  # the vision tower was not changed
    assert outcome.evaluation.ported.value == pytest.approx(outcome.evaluation.source.value, abs=0.04)


def test_a_tower_that_did_not_change_is_not_run(world):
    outcome = run(
        PortConfig(
            str(world / "ft"), str(world / "plus"), str(world / "task"), base=str(world / "base"), method="bico", n=8
        ),
        Hub(),
    )
    assert all(row["tower"] == "" for row in outcome.report["layers"])
