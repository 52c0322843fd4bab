"""The page of maps between two bases."""

from collections.abc import Iterator

from hf_bico.reports.page import common, layers
from hf_bico.reports.page.parts import Cell, Column, Facts, Page, Part, Section, Table, Text, Tile
from hf_bico.reports.page.reading import Drawn, Mapped, Matched, Side, Stored, typed
from hf_bico.reports.page.words import NONE, options, pinned, size
from hf_bico.reports.report import MapsReport


def page(report: MapsReport, endpoint: str) -> Page:
    """Return what the page of maps shows.

    Raises:
        PortError: a part of it is not what belongs there.
    """
    source, target = typed(Side, report.source), typed(Side, report.target)
    maps, files = typed(tuple[Mapped, ...], report.maps), typed(dict[str, Stored], report.files)
    return Page(
        "maps",
        f"{source.name} to {target.name}",
        f"Coordinate maps: any fine-tune of {source.name} is carried over to {target.name} through them.",
        tuple(each for each in _sections(report, source, target, maps, files, endpoint) if each),
        tiles=(
            Tile("layers with maps", f"{len(maps):,}", f"{size(sum(file.bytes for file in files.values()))}", True),
            *_means(maps),
        ),
    )


def _means(maps: tuple[Mapped, ...]) -> Iterator[Tile]:
    """Yield, for either side, the mean residual and the share of directions that the samples determine."""
    for side in ("output", "input"):
        fits = [fit for each in maps if (fit := getattr(each, side)) and fit.full > 0]
        if fits:
            share = sum(fit.rank / fit.full for fit in fits) / len(fits)
            residual = sum(fit.residual for fit in fits) / len(fits)
            yield Tile(f"residual, {side} side", f"{residual:.3f}", f"{share:.0%} of the directions determined")


def _sections(
    report: MapsReport, source: Side, target: Side, maps: tuple[Mapped, ...], files: dict[str, Stored], endpoint: str
) -> Iterator[Section | None]:
    yield Section.of("layers", "Layers", layers.parts(layers.layers_of_maps(maps)))
    matching = typed(Matched, report.matching)
    if matching.cka:
        yield common.matched(matching.cka, matching.paths, (source.name, target.name))
    missing = [(tower or NONE, why) for tower, why in report.left.items()]
    yield Section.of("left", "What there are no maps of", [Facts("Towers", tuple(missing)) if missing else None])
    yield common.cost(report.environment, None)
    yield Section.of("made", "How they were made", _made(report, matching))
    yield Section.of(
        "lineage",
        "Lineage and versions",
        [
            _sides(source, target, endpoint),
            Table(
                "Files",
                (Column("file"), Column("size", "number"), Column("sha256", "code")),
                tuple((name, size(file.bytes), file.sha256) for name, file in list(files.items())[: common.MOST]),
            ),
            *common.versions(report.environment, report.schema, report.hf_bico, report.created),
        ],
    )
    yield common.again(report.command)


def _sides(source: Side, target: Side, endpoint: str) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for role, side in (("from", source), ("to", target)):
        name = f"{side.name} (local)" if side.local else common.link(side.name, side.commit, endpoint)
        rows.append((role, name, side.commit or NONE, side.fingerprint.get("full", NONE)))
    columns = (Column(""), Column("repo"), Column("commit", "code"), Column("sha256 of the tensors", "code"))
    return Table("Lineage: the two bases", columns, tuple(rows))


def _made(report: MapsReport, matching: Matched) -> list[Part | None]:
    """Return the method and the samples."""
    drawn = typed(Drawn, report.calibration)
    rows = [
        ("method", f"{report.method.name} ({report.method.citation})"),
        ("options of the method", options(report.method.options)),
        ("blocks matched by", matching.rule),
        ("calibration samples N", f"{drawn.n:,}"),
        ("dataset", pinned(drawn.dataset, drawn.commit)),
        ("split, strategy, seed", f"{drawn.split}, {drawn.strategy}, {drawn.seed}"),
        ("sha256 of the samples", drawn.content_sha256),
    ]
    return [
        Text(report.method.summary),
        Facts("Options and calibration", tuple(rows)),
        common.listed("Indices of the calibration samples", drawn.indices),
        *common.notes(report.notes),
    ]
