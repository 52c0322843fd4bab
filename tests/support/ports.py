"""A port that was pushed, and the same on live objects."""

from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file
from support.commands import TINY_PORT
from support.twins import Samples, random_fine_tune, tiny_clip

from hf_bico import BiCo, Naive, Ported, class_loss
from hf_bico import port as port_live
from hf_bico.core.collect import Batch
from hf_bico.families import LIBRARIES
from hf_bico.io.hub import Hub
from hf_bico.tasks.asked import zero_shot_head
from hf_bico.tasks.batches import batched
from hf_bico.tasks.samples import classes_of, draw, read_task
from hf_bico.tasks.splits import HubDataset
from hf_bico.tasks.strategies import Calibration
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.port import run

PORT = (*TINY_PORT, "-n", "20", "--allow-regression")


@pytest.fixture(scope="module")
def pushed(world, tmp_path_factory):
    """One port that was written and pushed: its folder, its repo and its outcome."""
    folder = tmp_path_factory.mktemp("out") / "ported"
    chosen = PortConfig(
        "demo/ft",
        "demo/plus",
        "demo/task",
        method="bico",
        n=20,
        output=folder,
        push_to="demo/pushed",
        allow_regression=True,
    )
    return folder, "demo/pushed", run(chosen, Hub())


@pytest.fixture(scope="module")
def live(world):
    """The target's tensors after the same port between live modules, without the Hub."""
    hub = Hub()
    dataset = HubDataset(hub, hub.resolve("demo/task", "dataset"))
    split = dataset.split("train")
    task = read_task(dataset, split, {}, None)
    twenty = Calibration(n=20)
    samples = draw(split, "train", task, twenty, classes_of(split, task, twenty)).samples
    base, target = sides = [LIBRARIES[0].load(world / name, "cpu") for name in ("base", "plus")]
    heads = [zero_shot_head(LIBRARIES[0], side, task.class_names, task.templates) for side in sides]
    for name, head in zip(("base", "plus"), heads, strict=True):
        model, _, words = opened(world / name)
        theirs = open_clip.build_zero_shot_classifier(model, words, task.class_names, task.templates).T
        assert torch.allclose(head, theirs, atol=1e-6)  # maps of few samples turn further on such a difference
    calibration = [
        Batch(
            *(
                (
                    torch.stack([side.preprocess(sample.inputs) for sample in some]),
                    torch.tensor([sample.label for sample in some]),
                )
                for side in sides
            )
        )
        for some in batched(samples, 8)
    ]
    ported = port_live(
        tuned=load_file(world / "ft" / "open_clip_model.safetensors"),
        base=base.model,
        target=target.model,
        calibration=calibration,
        loss=tuple(class_loss(head) for head in heads),
        method=BiCo(),
    )
    return ported.apply_().state_dict()


def opened(folder: Path):
    """A model, its preprocessing and its tokenizer, by open_clip alone."""
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    return model.eval(), preprocess, open_clip.get_tokenizer(f"local-dir:{folder}")


def same(folder: Path, tensors: dict[str, torch.Tensor]) -> bool:
    written = load_file(folder / "open_clip_model.safetensors")
    return written.keys() == tensors.keys() and all(
        torch.allclose(written[key], tensors[key], rtol=1e-5, atol=1e-7) for key in tensors
    )


def clip_port() -> Ported:
    """A naive port between two tiny CLIPs in memory, which no library opens by itself."""
    clip, samples = tiny_clip(), Samples.make(8)
    return port_live(
        tuned=random_fine_tune(clip),
        base=clip,
        target=tiny_clip(seed=1),
        loss=samples.loss,
        calibration=[(samples.images, samples.labels)],
        method=Naive(),
    )
