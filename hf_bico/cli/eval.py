"""`hf-bico eval`."""

from rich import box
from rich.table import Table

from hf_bico.cli.options import Call, command
from hf_bico.workflows.config import EvalConfig


@command(EvalConfig)
def evaluate(config: EvalConfig, call: Call) -> None:
    """Score every REF as it is: a whole model, or a delta or an adapter over its base."""
    from hf_bico.io.hub import Hub
    from hf_bico.workflows.evaluate import run

    report = run(config, Hub(call.token), call.terminal.track).report
    call.terminal.say(_table(report), report.to_json(), "\n".join(f"{each.score.value:.6g}" for each in report.models))


def _table(report) -> Table:
    also = list(dict.fromkeys(name for each in report.models for name in each.score.also))
    title = f"{report.lineage['dataset'].name}, {report.split}, {report.n} samples"
    header = ("model", "metric", "score", "95 % interval", *also)
    table = Table(*header, box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False, title=title, title_style="")
    for each in report.models:
        score = each.score
        more = (f"{score.also[name]:.4g}" if name in score.also else "–" for name in also)
        table.add_row(each.name, score.metric, str(score), score.interval, *more)
    return table
