"""`hf-bico eval`."""

from hf_bico.cli.console import Grid, tabbed
from hf_bico.cli.options import Call, command
from hf_bico.workflows.config import EvalConfig


@command(EvalConfig, "Scoring {refs} on {dataset}")
def evaluate(config: EvalConfig, call: Call) -> None:
    """Score models, deltas and adapters as they are."""
    from hf_bico.io.hub import Hub
    from hf_bico.workflows.evaluate import run

    report = run(config, Hub(call.token), call.terminal.track).report
    call.terminal.say(_table(report), report.to_json(), _numbers(report))


def _numbers(report) -> str:
    """Return a line for every model: its score, of several with its name before it."""
    alone = len(report.models) == 1
    return "\n".join(tabbed([each.name] * (not alone) + [f"{each.score.value:.6g}"]) for each in report.models)


def _table(report) -> Grid:
    from hf_bico.tasks.paired import shown_difference

    also = list(dict.fromkeys(name for each in report.models for name in each.score.also))
    held = any(each.paired for each in report.models)
    flips = any(each.paired and each.paired.won is not None for each in report.models)
    header = ["model", "metric", "score", "95 % interval", *also]
    header += ["minus the first"] * held + ["newly right", "newly wrong", "McNemar's p"] * flips
    rows = []
    for each in report.models:
        score, pair = each.score, each.paired
        row = [each.name, score.metric, str(score), score.interval]
        row += [f"{score.also[name]:.4g}" if name in score.also else "–" for name in also]
        row += [shown_difference(pair, score.metric) if pair else "–"] * held
        known = pair is not None and pair.won is not None
        row += ([str(pair.won), str(pair.lost), f"{pair.p:.2g}"] if known else ["–"] * 3) if flips else []
        rows.append(row)
    return Grid(header, rows, f"{report.lineage['dataset'].name}, {report.split}, {report.n} samples")
