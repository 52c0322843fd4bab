"""A comparison's data as tables."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import fmean, stdev
from typing import Any

from hf_bico.reports.plain import to_plain
from hf_bico.reports.worth import ASKED, Scored, Word, worth
from hf_bico.tasks.scores import METRICS, Metric, Score

PICTURE = "compare.png"
SOURCE = "the source's own score"
"""What the gap runs to, and what a comparison measures by unless a fine-tune of the target is named."""
BASELINES = ("naive",)
"""Methods that the others are measured against: they need less than those."""


def cells(data: dict[str, Any]) -> Iterator[list[str]]:
    """Yield the rows of a summary that fits into 80 columns, the header first: one row per method, α and N."""
    metric = _metric(data)
    yield ["method", "α", "N", metric.name, way_of(data["reference"]["what"]), "verdict", "seconds", "GB"]
    numbers, best = _numbers(data), winner(data)
    for entry in data["summary"]:
        alpha, k = entry["alpha"], entry["per_class"]
        where = [
            entry["method"],
            alpha if isinstance(alpha, str) else f"{alpha:g}",
            f"{entry['n']}" + (f" ({k} a class)" if k else ""),
        ]
        if entry["refusal"]:
            yield [*where, "refused", "–", f"({numbers[entry['refusal']]})", "–", "–"]
        else:
            peak = entry["peak_bytes"]
            yield [
                *where,
                metric.show(entry["score"]),
                _share(entry, way_of(data["reference"]["what"])),
                _word(entry["verdict"]) + (", best" if entry is best else ""),
                f"{entry['seconds']:.1f} + {entry['shared_seconds']:.1f}",
                f"{peak / 1e9:.2f}" if peak else "–",
            ]


def _word(verdict: dict[str, Any]) -> str:
    """Return the word, with a star where a port gains and is not the one to take."""
    return verdict["word"] + "*" * (verdict["word"] in (Word.WORKS, Word.PARTLY) and not verdict["pushable"])


def winner(data: dict[str, Any]) -> dict[str, Any] | None:
    """Return the entry with the best mean of those that gain; None if none does."""
    fit = [each for each in data["summary"] if each["verdict"] and each["verdict"]["pushable"]]
    return (max if _metric(data).higher else min)(fit, key=lambda entry: entry["score"]) if fit else None


def advice(data: dict[str, Any]) -> str:
    """Return what to do after a comparison: the port with the best mean of those that gain, as a command's words."""
    metric, best = _metric(data), winner(data)
    if best is None:
        return "Next: no method gains here that is not beaten by another: fine-tune the new base"
    alpha, k = best["alpha"], best["per_class"]
    words = [f"--method {best['method']}", f"--alpha {alpha if isinstance(alpha, str) else f'{alpha:g}'}"]
    words += [f"-n {best['n']}" if k is None else f"--per-class {k}"]
    port = data.get("command") or f"hf-bico port {ASKED}"
    return f"Next: {port} {' '.join(words)} --output ported (the best of those that gain: {metric.show(best['score'])})"


def way_of(goal: str) -> str:
    """Return what the way from the target without a port to a goal is called: the gap is that to the source's score."""
    return "gap" if goal == SOURCE else "gain"


def whole_way(goal: str) -> str:
    """Return the words for that way."""
    return f"the gap to {goal}" if goal == SOURCE else f"the gain of {goal}"


def _share(entry: dict[str, Any], way: str) -> str:
    share, spread = entry["recovered"], entry["recovered_spread"]
    return f"no {way}" if share is None else f"{share:.0%}" + ("" if spread is None else f" ± {100 * spread:.0f}")


def _numbers(data: dict[str, Any]) -> dict[str, int]:
    """Return the reasons for which rows were refused, numbered as they come."""
    reasons = dict.fromkeys(entry["refusal"] for entry in data["summary"] if entry["refusal"])
    return {reason: number for number, reason in enumerate(reasons, 1)}


def refusals(data: dict[str, Any]) -> list[str]:
    """Return the reasons that the table names by their numbers, each in full."""
    return [f"({number}) {reason}" for reason, number in _numbers(data).items()]


def caption(data: dict[str, Any]) -> str:
    """Return a caption: what the columns say, and what ports are measured by."""
    scores, reference, metric = data["evaluation"], data["reference"], _metric(data)
    seeds = max((entry["seeds"] for entry in data["summary"]), default=0)
    start, source, goal = (metric.show(each["value"]) for each in (scores["zero_shot"], scores["source"], reference))
    return (
        f"Split {scores['split']}, {scores['zero_shot']['n']} samples, {metric.name}: the target without a port "
        f"{start}, the fine-tuned source {source}. A row has the mean over {seeds} seed{'s'[: seeds != 1]}, the "
        f"share of {whole_way(reference['what'])} ({goal}) ± its spread over the seeds in points, seconds (the "
        f"method's own + those of the collection that all share), and the most memory in GB. Verdicts are on the "
        f"means; a star: it gains, and the naive copy is better."
    )


def _metric(data: dict[str, Any]) -> Metric:
    return METRICS[data["evaluation"]["metric"]]


def markdown(data: dict[str, Any], *, pictured: bool = False) -> str:
    """Return a comparison as a Markdown page.

    Args:
        pictured: whether its picture lies beside it.
    """
    header, *rows = cells(data)
    lineage, way = data["lineage"], whole_way(data["reference"]["what"])
    lines = [
        f"# {lineage['source']['name']} on {lineage['target']['name']}",
        "",
        caption(data),
        *(["", f"![The share of {way} that each method brings]({PICTURE})"] if pictured else []),
        "",
        f"| {' | '.join(header)} |",
        "|" + "---|" * len(header),
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    return "\n".join([*lines, *(f"\n{line}" for line in (*refusals(data), advice(data)))]) + "\n"


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one entry per method, α and N, over the seeds: means, spreads (sample standard deviations), most memory.

    A refusal by any seed is the entry's; the share is None where there is no way to go.
    """
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["method"], row["alpha"], row["n"], row["per_class"]), []).append(row)
    entries = []
    for (method, alpha, n, per_class), some in groups.items():
        entry = {
            "method": method,
            "alpha": alpha,
            "n": n,
            "per_class": per_class,
            "seeds": len(some),
            "refusal": next((row["refusal"] for row in some if row["refusal"]), None),
        }
        for name in ("score", "recovered", "scale", "seconds", "shared_seconds"):
            values = [row[name] for row in some]
            whole = entry["refusal"] is None and None not in values
            entry[name] = fmean(values) if whole else None
            entry[f"{name}_spread"] = stdev(values) if whole and len(values) > 1 else None
        names = some[0]["also"] if entry["refusal"] is None else ()
        entry["also"] = {name: fmean(row["also"][name] for row in some) for name in names}
        entries.append(entry | {"peak_bytes": max(row["peak_bytes"] for row in some)})
    return entries


def judged(entries: Sequence[dict[str, Any]], start: Score, goal: Score | None, classes: int) -> list[dict[str, Any]]:
    """Return a summary with the verdict on every entry's means; the naive copy's of the same α and N is a baseline.

    Args:
        start: the target's score without a port, over all draws.
        goal: what ports are measured by; None where it is on another scale.
        classes: as for `worth`.
    """

    def mean(entry: dict[str, Any]) -> Score:
        """The means as a score whose interval is its value: that of the start says what is uncertain."""
        value = entry["score"]
        return replace(start, value=value, low=value, high=value, also=entry["also"])

    def verdict(entry: dict[str, Any]) -> dict[str, Any] | None:
        if entry["score"] is None:
            return None
        where = ("alpha", "n", "per_class")
        naive = {
            other["method"]: mean(other)
            for other in entries
            if other["method"] in BASELINES
            and other["score"] is not None
            and [other[name] for name in where] == [entry[name] for name in where]
        }
        scored = Scored(goal, start, mean(entry), naive)
        return to_plain(worth(scored, alpha=entry["scale"], unchanged=entry["scale"] == 0, classes=classes))

    return [entry | {"verdict": verdict(entry)} for entry in entries]
