"""What is found, as Markdown in which names of repos are text and nothing else."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import ports

from hf_bico.reports.markdown import code, fenced, inline
from hf_bico.reports.report import Evaluation

BOUNDS = ports.BOUNDS
HEAD = """# hf_bico

You fine-tuned a model, and a better base came out. hf_bico carries what the fine-tune learned over to the new base,
without training, from about a hundred samples of the task."""
LIMITS = f"""This page takes public repos alone, with at most {BOUNDS.model_mb:,} MB of weights a model,
{BOUNDS.dataset_mb:,} MB a dataset, {BOUNDS.samples} samples and {BOUNDS.seconds // 60} minutes a run; one run at a
time, the others wait in a queue. A result is kept for an hour at most. For more, `pip install hf-bico` on a machine of
your own: the commands are the same."""
PROGRAMS = """`check`, `port` and `methods` are tools of an MCP server, whose address is that of this page with
`gradio_api/mcp/` behind it, and endpoints of an API (at the foot of the page). Neither pushes."""


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table; texts in it are escaped."""
    lines = [header, ["---"] * len(header), *([inline(str(cell)) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def of_check(data: dict[str, Any]) -> str:
    """Return what a check says."""
    verdict, lineage = data["verdict"], data["lineage"]
    names = " → ".join(inline(lineage[role]["name"]) for role in ("source", "target"))
    lines = [f"## {names}: {verdict['grade']}", "\n".join(f"- {inline(reason)}" for reason in verdict["reasons"])]
    if verdict["next"]:
        lines += ["Next, on a machine of your own or by the button **Port**:", fenced(verdict["next"])]
    lines += _found(data)
    return "\n\n".join(map(str, lines))


def _found(data: dict[str, Any]) -> Iterator[str]:
    """Yield what was found of models, change and cost, as far as the check went."""
    if models := data.get("models"):
        rows = [
            (
                role,
                entry["family"],
                ", ".join(f"{tower} {count}".strip() for tower, count in entry["blocks"].items() if count),
                entry["linear_maps"],
                f"{entry['parameters'] / 1e6:,.1f} M",
            )
            for role, entry in models.items()
        ]
        yield "### Models\n\n" + table(("", "family", "blocks", "layers", "parameters"), rows)
    if vector := data.get("task_vector"):
        yield (
            f"The change is {vector['relative_norm']:.3f} × as large as its base's weights; "
            f"{vector['moved_share']:.1%} of it (of ‖τ‖²) would move."
        )
        if vector["left"]:
            rows = [(f"{entry['share']:.1%}", entry["tensors"], entry["reason"]) for entry in vector["left"]]
            yield table(("stays", "tensors", "why"), rows)
    if cost := data.get("estimate"):
        yield (
            f"A port by {cost['method']} with {cost['n']} samples would take about {cost['seconds']:.1f} s here and "
            f"{cost['memory_bytes'] / 1e9:.2f} GB; loading comes on top."
        )


def of_port(made: ports.Made) -> str:
    """Return a port's verdict, its scores, and what can be done with it."""
    outcome, verdict = made.outcome, made.outcome.verdict
    lines = [f"## Verdict: {verdict.word}", f"{inline(_sentence(verdict.reason))} Next: {inline(verdict.next)}."]
    lines.append(scores(outcome.evaluation))
    if outcome.refusal:
        lines.append("It gains too little to be pushed. It can be downloaded all the same.")
    return "\n\n".join(map(str, lines))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def scores(evaluation: Evaluation) -> str:
    """Return the table of scores."""
    also = list(evaluation.ported.also)
    rows = [
        (name, score, score.interval, *(f"{score.also[what]:.4g}" for what in also)) for name, score in evaluation.rows
    ]
    header = ("model", evaluation.ported.metric, "95 % interval", *also)
    return f"Scores on {evaluation.ported.n} samples of {code(evaluation.split)}:\n\n{table(header, rows)}"


def of_methods() -> str:
    """Return the table of methods."""
    return table(("method", "what it does"), ((each["name"], each["summary"]) for each in ports.methods()))
