"""Reports of every kind as JSON data, made by hand: nothing is ported."""

from typing import Any

from hf_bico.core.account import Left
from hf_bico.core.choice import Attempt, Choice
from hf_bico.core.riders import Rode
from hf_bico.core.transport import Moved
from hf_bico.core.types import Fit
from hf_bico.reports.records import (
    CalibrationRecord,
    Environment,
    HeadRecord,
    LayerRow,
    MatchingRecord,
    MethodRecord,
    Origin,
    SiteRow,
    TaskVectorRecord,
    Tried,
)
from hf_bico.reports.report import CheckReport, CompareReport, Elsewhere, Evaluation, MapsReport, PortReport
from hf_bico.reports.tables import judged, summary
from hf_bico.reports.worth import worth
from hf_bico.tasks.paired import ClassChange, Paired
from hf_bico.tasks.scores import Score

ROLES = ("q", "k", "v", "attention output", "MLP gate", "MLP up", "MLP down")
HASH = "5f877b7f32f5c66ad2d204bbebb2a61c7a24b8e892a48aa0b29aeafd4ab1c8e9"
COMMIT = "58fcf864ccbc270731169d5780c2ba50840fdf67"
LINEAGE = {
    "source": Origin("demo/ft", COMMIT, False, HASH),
    "base": Origin("demo/base", COMMIT, False, HASH),
    "target": Origin("demo/plus", COMMIT, False, HASH),
    "dataset": Origin("demo/task", COMMIT, False),
}
ENVIRONMENT = Environment(
    {"torch": "2.14.1"},
    "3.11",
    "cpu",
    2,
    {"load": 1.5, "calibrate": 30.0, "move": 12.0, "evaluate": 3.0},
    2 * 10**9,
    None,
)


def score(value: float, n: int = 200) -> Score:
    return Score.of(round(value * n), n)


def port_data(blocks: int = 2, **changed: Any) -> dict[str, Any]:
    """A port of a tower of so many blocks, by auto, with CKA."""
    fits = [Fit(300 + k, 384, k / (8 * blocks)) for k in range(7 * blocks)]
    names = [f"block {depth} {role}" for depth in range(blocks) for role in ROLES]
    against = (Paired("zero_shot", 0.37, 0.3, 0.44, 80, 6, 1e-9), Paired("source", -0.13, -0.2, 0.01, 4, 30, 0.2))
    scores = Evaluation(
        "test", score(0.91), score(0.41), score(0.44), score(0.78), bico=score(0.7), paired=against,
        classes=(ClassChange("circle", 120, 0.5, 0.4), ClassChange("square", 80, 0.25, 0.75)),
        elsewhere=(Elsewhere(LINEAGE["dataset"], "validation", score(0.6), score(0.5), against[0]),),
    )  # fmt: skip
    tried = (
        Attempt("naive", {}, 0.5, 51.0),
        Attempt("theseus", refusal="it needs images"),
        Attempt("bico", {}, 1.0, 13.1),
    )
    report = PortReport(
        lineage=LINEAGE,
        environment=ENVIRONMENT,
        command="hf-bico port demo/ft --to demo/plus --output ported",
        method=MethodRecord(
            "auto", "after arXiv:2605.28444", "Several methods are tried.", {}, ("input",), alpha=1.0,
            search=(Tried(0.5, 1.25), Tried(1.0, 0.75)), choice=Choice(tried[2], 60.0, tried),
        ),
        calibration=CalibrationRecord(
            n=100, content_sha256=HASH, split="train", strategy="random", seed=0, indices=tuple(range(3, 303, 3)),
            class_names=("circle", "square"), templates=("a {}.",), answer="one class",
        ),
        task_vector=TaskVectorRecord(relative_norm=0.12, moved_share=0.9, kept_share=0.8),
        layers=tuple(
            LayerRow("", depth, depth // 2, tuple(SiteRow(role, (384, 384), (512, 512)) for role in ROLES))
            for depth in range(blocks)
        ),
        matching=MatchingRecord(
            "cka",
            paths={"": [depth // 2 for depth in range(blocks)]},
            cka={"": [[1 / (1 + abs(b - a)) for a in range(blocks)] for b in range(blocks)]},
        ),
        head=HeadRecord("zero-shot", (), None),
        moved=tuple(
            Moved(name, name, 0.3, 0.5 + k / (14 * blocks), 1.0, fit, None if k == 1 else fit)
            for k, (name, fit) in enumerate(zip(names, fits, strict=True))
        ),
        beside=(Rode("a.bias", "b.bias", "biases of norms", 0.02, 1.0),),
        left=(Left("x", "no block of the target takes it", 0.5), Left("y", "no block of the target takes it", 0.5)),
        evaluation=scores,
        verdict=worth(scores.scored),
    )  # fmt: skip
    return report.to_json() | changed


def compare_data(sizes: tuple[int, ...] = (10, 100)) -> dict[str, Any]:
    """A comparison of three methods, one of which refuses; `weighted` is the best."""
    start, goal = score(0.4), score(0.9)
    found = {"naive": 0.42, "weighted": 0.8, "bico": 0.7}
    rows = [
        {
            "n": n, "per_class": None, "seed": seed, "method": method, "alpha": 1.0, "scale": 1.0, "refusal": None,
            "score": value - 1 / n + seed / 50, "recovered": (value - 1 / n + seed / 50 - 0.4) / 0.5,
            "also": {}, "seconds": 2.0, "shared_seconds": 3.0, "peak_bytes": 10**9, "search": None,
        }
        for n in sizes for seed in (0, 1) for method, value in found.items()
    ]  # fmt: skip
    none = dict.fromkeys(("score", "recovered", "scale", "seconds", "shared_seconds"))
    rows += [rows[3 * k] | none | {"method": "theseus", "refusal": "it needs images", "peak_bytes": 0} for k in (0, 1)]
    plain = {name: vars(each) for name, each in (("source", goal), ("zero_shot", start))}
    report = CompareReport(
        lineage=LINEAGE,
        environment=ENVIRONMENT,
        evaluation={"split": "test", "metric": "accuracy", **plain},
        reference={"what": "the source's own score", "model": "demo/ft", **vars(goal)},
        methods={name: {"rtol": 1e-5} for name in (*found, "theseus")},
        calibration=[{"n": n, "seed": seed, "content_sha256": HASH} for n in sizes for seed in (0, 1)],
        head="zero-shot",
        task={},
        rows=rows,
        summary=judged(summary(rows), start, goal, 10),
    )
    return report.to_json()


def maps_data() -> dict[str, Any]:
    """Maps of two blocks, of which the last layer has none at its input side."""
    fit = Fit(30, 32, 0.25)
    sites = [(depth, role) for depth in (0, 1) for role in ROLES]
    side = {"commit": COMMIT, "local": False, "fingerprint": {"full": HASH}}
    report = MapsReport(
        schema=2,
        environment=ENVIRONMENT,
        command="hf-bico align demo/base demo/plus --dataset demo/task --output maps",
        source={"name": "demo/base"} | side,
        target={"name": "demo/plus"} | side,
        method=MethodRecord("bico", "arXiv:2605.28444", "Two orthogonal maps a layer.", {"rtol": 1e-5}, ("input",)),
        calibration={"dataset": "demo/task", "n": 20, "content_sha256": HASH, "indices": [1, 2], "seed": 0},
        matching={"rule": "index", "layers": None, "skip": None, "paths": {"": [0, 1]}},
        left={"text": "it need not run"},
        files={"maps-00001.safetensors": {"bytes": 5000, "sha256": HASH}},
        maps=[
            {
                "source": f"block {depth} {role}", "target": f"block {depth} {role}", "tower": "", "scale": 1.0,
                "blocks": [depth, depth], "shapes": [[32, 32], [48, 48]], "output": vars(fit),
                "input": None if (depth, role) == sites[-1] else vars(fit),
            }
            for depth, role in sites
        ],
    )  # fmt: skip
    return report.to_json()


def check_data() -> dict[str, Any]:
    """A check with samples."""
    port = port_data()
    blocks = [
        {"tower": "", "target": k, "source": k // 2, "cka": 0.5, "input_residual": 0.1, "output_residual": None}
        for k in (0, 1)
    ]
    report = CheckReport(
        lineage=LINEAGE,
        environment=ENVIRONMENT,
        models={"source": {"family": "clip", "blocks": {"": 2}, "linear_maps": 14, "parameters": 10**6}},
        task_vector={
            "relative_norm": 0.1, "moved_share": 0.9, "by_role": {"q": 0.5, "k": 0.4}, "by_block": {"block 0": 0.9},
            "left": [{"reason": "no map", "tensors": 2, "share": 0.1}],
        },
        estimate={"method": "bico", "n": 100, "seconds": 12.0, "memory_bytes": 10**9, "stages": {"move": 2.0}},
        signs={"cka": 0.5, "recovered": None},
        trial={"before": 10.0, "after": 5.0, "source": 1.0, "what": "loss", "naive": None},
        scores={"target": score(0.4), "source": score(0.9)},
        cka=port["matching"]["cka"],
        blocks=blocks,
        verdict={"grade": "good", "reasons": ["ports of one half gained"], "next": "hf-bico port demo/ft"},
    )  # fmt: skip
    return report.to_json()
