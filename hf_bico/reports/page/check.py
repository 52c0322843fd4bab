"""The page of a check, as far as it went."""

from collections.abc import Iterator, Mapping

from hf_bico.reports.page import common
from hf_bico.reports.page.parts import Bar, Cell, Column, Facts, Page, Part, Section, Table, Text, Tile
from hf_bico.reports.page.reading import Block, Judged, Looked, Shares, estimate_of, typed
from hf_bico.reports.page.words import NONE, figure, percent, place, score_tile, word
from hf_bico.reports.report import CheckReport
from hf_bico.tasks.scores import Score


def page(report: CheckReport, endpoint: str) -> Page:
    """Return what the page of a check shows.

    Raises:
        PortError: a part of it is not what belongs there.
    """
    verdict, lineage = typed(Judged, report.verdict), report.lineage
    names = [lineage[role].name for role in ("source", "target") if role in lineage]
    return Page(
        "a check",
        " on ".join(names),
        "What a port would move and cost, and whether it is worth making.",
        tuple(each for each in _sections(report, verdict, endpoint) if each),
        word(verdict.grade),
        tuple(f"{reason[:1].upper()}{reason[1:]}." for reason in verdict.reasons),
        _tiles(report.scores or {}),
    )


def _tiles(scores: Mapping[str, Score | None]) -> tuple[Tile, ...]:
    labels = {"target": "the new base without a port", "source": "the fine-tune, on its own base"}
    return tuple(score_tile(labels.get(who, who), score) for who, score in scores.items() if score)


def _sections(report: CheckReport, verdict: Judged, endpoint: str) -> Iterator[Section | None]:
    yield common.again(verdict.next or None, "What to do next")
    rows = [*_signs(report.signs or {}), *_trial(report)]
    yield Section.of("signs", "What it goes by", [Facts("On the samples", tuple(rows)) if rows else None])
    if report.blocks:
        yield Section.of("blocks", "Blocks", [_blocks(typed(tuple[Block, ...], report.blocks))])
    if report.cka:
        base, target = (report.lineage[role].name if role in report.lineage else role for role in ("base", "target"))
        paths = report.matching.paths if report.matching and report.matching.paths else _paths(report)
        yield common.matched(report.cka, paths, (base, target))
    if report.task_vector:
        yield Section.of("moves", "What would move", _moves(typed(Shares, report.task_vector)))
    if report.models:
        yield Section.of("models", "Models", [_models(typed(dict[str, Looked], report.models))])
    yield Section.of("pairs", "Layers that meet", [common.pairs(report.pairs or ())])
    yield common.cost(report.environment, estimate_of(report.estimate))
    yield Section.of("notes", "How the inputs were read", common.notes(report.notes))
    yield Section.of(
        "lineage",
        "Lineage and versions",
        [
            common.lineage(report.lineage, endpoint),
            *common.versions(report.environment, report.schema, report.hf_bico, report.created),
            common.listed("Indices of the samples", (report.samples and report.samples.indices) or ()),
        ],
    )


def _signs(signs: Mapping[str, float | None]) -> Iterator[tuple[str, str]]:
    told = {
        "cka": "mean CKA of the blocks' inputs",
        "input_residual": "residual of the maps, input side",
        "output_residual": "residual of the maps, output side",
        "kept": "share of τ in the maps' span",
        "recovered": "share of the loss's gap that a trial port recovered",
    }
    yield from ((told.get(name, name), figure(value, 3)) for name, value in signs.items())


def _trial(report: CheckReport) -> Iterator[tuple[str, str]]:
    for name, value in (report.trial or {}).items():
        if isinstance(value, int | float):
            what = str((report.trial or {}).get("what", "loss"))
            yield f"{what} over the samples, {name}", figure(value)


def _blocks(blocks: tuple[Block, ...]) -> Part:
    """Return how alike matched blocks are."""
    numbers = ("residual in", "residual out", "rank in", "rank out", "τ kept", "apart")
    columns = [Column("target"), Column("source", "number"), Column("CKA", "number"), Column("", "picture")]
    columns += [Column(title, "number") for title in numbers]
    rows: list[tuple[Cell, ...]] = []
    for each in blocks[: common.MOST]:
        residuals, ranks = (each.input_residual, each.output_residual), (each.input_rank, each.output_rank)
        rows.append(
            (
                place(each.tower, each.target),
                NONE if each.source is None else str(each.source),
                figure(each.cka, 2),
                "" if each.cka is None else Bar(each.cka),
                *(figure(value, 2) for value in residuals),
                *(NONE if value is None else f"{value:.0%}" for value in ranks),
                percent(each.kept),
                figure(each.apart, 2),
            )
        )
    return Table("Matched blocks, and the means of their layers' maps", tuple(columns), tuple(rows))


def _paths(report: CheckReport) -> dict[str, list[int | None]]:
    """Return the pairs of blocks by tower, from the rows of blocks."""
    found: dict[str, dict[int, int | None]] = {}
    for each in typed(tuple[Block, ...], report.blocks or []):
        if each.target is not None and 0 <= each.target < common.LARGEST:
            found.setdefault(each.tower, {})[each.target] = each.source
    return {tower: [blocks.get(k) for k in range(max(blocks) + 1)] for tower, blocks in found.items()}


def _moves(shares: Shares) -> list[Part | None]:
    left = {f"{each.reason} ({each.tensors} tensors)": each.share for each in shares.left}
    return [
        Text(
            f"Of the task vector, {shares.relative_norm:.3f} × as large as its base's weights, "
            f"{shares.moved_share:.1%} would move. Shares are of ‖τ‖²."
        ),
        common.bars("By layer", "layer", shares.by_role),
        common.bars("By block of the source", "block", shares.by_block),
        common.bars("What would stay behind", "reason", left),
    ]


def _models(models: Mapping[str, Looked]) -> Part:
    columns = (
        Column("role"),
        Column("family"),
        Column("blocks"),
        Column("layers", "number"),
        Column("parameters", "number"),
    )
    rows = [
        (
            role,
            each.family,
            ", ".join(f"{tower} {count}".strip() for tower, count in each.blocks.items() if count) or NONE,
            str(each.linear_maps),
            f"{each.parameters / 1e6:,.1f} M",
        )
        for role, each in models.items()
    ]
    return Table("The three models", columns, tuple(rows))
