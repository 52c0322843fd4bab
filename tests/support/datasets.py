"""A dataset in a folder, and what a port is asked to draw of it."""

import pytest
from support.world import write_dataset

from hf_bico.io.hub import Hub
from hf_bico.tasks.samples import classes_of, draw
from hf_bico.tasks.splits import HubDataset
from hf_bico.tasks.strategies import Calibration


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "task"
    write_dataset(path, {"train": 400, "test": 30}, group=10)
    return path


def opened(folder):
    hub = Hub()
    return HubDataset(hub, hub.resolve(str(folder), "dataset"))


def random_draw(split, task, n: int, seed: int = 0):
    chosen = Calibration(n=n, seed=seed)
    return draw(split, "train", task, chosen, classes_of(split, task, chosen))
