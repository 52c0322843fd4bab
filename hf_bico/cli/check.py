"""`hf-bico check`."""

from collections.abc import Iterable, Iterator
from typing import Any

import typer
from rich.text import Text

from hf_bico.cli.console import Facts, Grid, Part, toned
from hf_bico.cli.options import Call, command
from hf_bico.workflows.config import CheckConfig

IMPOSSIBLE = 1
"""Exit code where no port is possible; 2 is a mistake in what was asked."""


@command(CheckConfig, "Checking {source} → {target}")
def check(config: CheckConfig, call: Call) -> None:
    """Say what a port would move and cost, and whether it is worth it.

    Nothing is written. Exit code 1 means that there can be no port.
    """
    from hf_bico.io.hub import Hub
    from hf_bico.workflows.check import run

    terminal = call.terminal
    data = run(config, Hub(call.token), terminal.track)
    grade = data["verdict"]["grade"]
    terminal.say(_verdict(data), data, grade)
    terminal.add(*_parts(data))
    if grade == "impossible":
        raise typer.Exit(IMPOSSIBLE)


def _verdict(data: dict[str, Any]) -> Text:
    verdict, lineage = data["verdict"], data["lineage"]
    which = f"{lineage['source']['name']} → {lineage['target']['name']}: "
    lines = [f"- {reason}" for reason in verdict["reasons"]]
    lines += [f"Next: {verdict['next']}"] if verdict["next"] else []
    return Text.assemble(which, toned(verdict["grade"]), *(f"\n{line}" for line in lines))


def _parts(data: dict[str, Any]) -> Iterator[Part]:
    """Yield tables and lines of what was found, as far as it went."""
    if "models" in data:
        yield _table(
            "",
            "family",
            "blocks",
            "layers",
            "parameters",
            title="Models",
            rows=(
                [
                    role,
                    entry["family"],
                    _blocks(entry["blocks"]),
                    str(entry["linear_maps"]),
                    f"{entry['parameters'] / 1e6:,.1f} M",
                ]
                for role, entry in data["models"].items()
            ),
        )
    if "pairs" in data and "blocks" not in data:
        yield _table(
            "target block",
            "source block",
            "layers, out × in",
            title="Pairs",
            rows=([_depth(row["target"]), _depth(row["source"]), _widths(row["sites"])] for row in data["pairs"]),
        )
    if "task_vector" in data:
        yield _moves(data["task_vector"])
    if "blocks" in data:
        yield _table(
            "target",
            "source",
            "CKA",
            "residual in",
            "out",
            "rank in",
            "out",
            "τ kept",
            "apart",
            rows=(
                [
                    _place(row["tower"], row["target"]),
                    _depth(row["source"]),
                    *(
                        _figure(row[name])
                        for name in (
                            "cka",
                            "input_residual",
                            "output_residual",
                            "input_rank",
                            "output_rank",
                            "kept",
                            "apart",
                        )
                    ),
                ]
                for row in data["blocks"]
            ),
            title="Blocks",
        )
    if "estimate" in data:
        yield "\n".join(_cost(data["estimate"]))


def _table(*header: str, rows: Iterable[list[str]], title: str) -> Grid:
    return Grid(header, list(rows), title)


def _blocks(depths: dict[str, int]) -> str:
    return ", ".join(f"{tower} {count}".strip() for tower, count in depths.items() if count)


def _depth(depth: int | None) -> str:
    return "–" if depth is None else str(depth)


def _place(tower: str, depth: int | None) -> str:
    return " ".join(filter(None, (tower, "others" if depth is None else str(depth))))


def _widths(sites: list[dict[str, Any]]) -> str:
    """Return shapes of source and target, each once."""
    shapes = dict.fromkeys("×".join(map(str, s["source"])) + " → " + "×".join(map(str, s["target"])) for s in sites)
    return ", ".join(shapes)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _moves(vector: dict[str, Any]) -> Facts:
    rows = [
        (name, ", ".join(f"{key} {share:.1%}" for key, share in parts.items()))
        for name, parts in (("by layer", vector["by_role"]), ("by block", vector["by_block"]))
    ]
    rows += [
        ("stays", f"{each['share']:.1%} in {each['tensors']} tensors: {each['reason']}") for each in vector["left"]
    ]
    told = (
        f"Of the task vector, {vector['relative_norm']:.3f} × as large as its base's weights, "
        f"{vector['moved_share']:.1%} would move (shares are of ‖τ‖²):"
    )
    return Facts(told, rows)


def _cost(cost: dict[str, Any]) -> Iterator[str]:
    """Yield what a port would take; stages are timed where there were samples."""
    stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in cost["stages"].items() if seconds)
    yield (
        f"A port by {cost['method']} with N = {cost['n']} would take about {cost['seconds']:.1f} s here ({stages}) "
        f"and {cost['memory_bytes'] / 1e9:.2f} GB{_in_groups(cost)}; loading comes on top."
    )
    yield (
        f"  passes {cost['passes_flops'] / 1e9:.3g}, moments {cost['moments_flops'] / 1e9:.3g}, maps "
        f"{cost['maps_flops'] / 1e9:.3g}, evaluation {cost['evaluation_flops'] / 1e9:.3g} GFLOP; moments "
        f"{cost['moments_bytes'] / 1e6:.0f} MB, weights {cost['weights_bytes'] / 1e6:.0f} MB"
    )


def _in_groups(cost: dict[str, Any]) -> str:
    groups = cost.get("groups", 1)
    return f" in {groups} groups of layers, each in a pass of its own" if groups > 1 else ""
