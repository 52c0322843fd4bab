"""Which block takes from which: by what the samples show, and how alike the blocks are that another rule matched."""

from dataclasses import replace
from typing import Any

from hf_bico.core.experts import match_experts
from hf_bico.core.likeness import likeness
from hf_bico.core.method import Track
from hf_bico.core.pairing import ROUTER, by_path
from hf_bico.core.similarity import cka_matrix, monotone_path
from hf_bico.core.types import Signal, Site
from hf_bico.io.models import PortModels, pair_models
from hf_bico.tasks.samples import Draw
from hf_bico.workflows.choices import CKA, MatchingChoices
from hf_bico.workflows.plan import matching_of
from hf_bico.workflows.session import Session


def match_blocks(
    session: Session, config: MatchingChoices, drawn: Draw, track: Track
) -> tuple[Session, dict[str, Any] | None]:
    """Return a session whose blocks are paired by their likeness on the samples, if that was asked for.

    Returns:
        The session, and what the layer matching found, for the report.
    """
    if config.matching != CKA:
        return with_experts(session, drawn), {"rule": session.plan.maps.made.rule} if session.plan.maps else None
    models, job = session.plan.models, session.job(drawn)
    dropped, both = _left_alone(models), _sites(models)
    towers = list(dict.fromkeys(site.tower for site in both[0] if site.depth is not None))
    matrices = {
        tower: cka_matrix(job.base, job.target, both, tower, job.batches)
        for tower in track(towers, "Comparing blocks", len(towers))
    }
    paths = {tower: monotone_path(matrix) for tower, matrix in matrices.items()}
    rule = matching_of(config, by_path(paths | dict.fromkeys(dropped)))
    pairs, _ = pair_models(models.base, models.target, rule)
    models = replace(models, pairs=(*pairs, *models.layers.moved)).without(dropped)
    session.plan.method.check(models.pairs)
    change = session.change and session.change.accounted(models, session.vocabularies)
    found = {
        "paths": {tower: list(path) for tower, path in paths.items()},
        "cka": {tower: matrix.tolist() for tower, matrix in matrices.items()},
    }
    return with_experts(replace(session, plan=replace(session.plan, models=models), change=change), drawn), found


def with_experts(session: Session, drawn: Draw) -> Session:
    """Return a session in which the experts of mixtures are matched by what the samples show of their routers."""
    models = session.plan.models
    if not any(pair.target.role == ROUTER for pair in models.pairs):
        return session
    job = session.job(drawn)
    models = replace(models, pairs=match_experts(job.base, job.target, models.pairs, job.batches))
    return replace(session, plan=replace(session.plan, models=models))


def compared(session: Session, drawn: Draw) -> dict[str, Any]:
    """Return how alike the blocks are that were matched by another rule, for the report; nothing where the samples
    have no say.
    """
    plan = session.plan
    if plan.maps or not plan.method.wanted.signals - {Signal.WEIGHT}:
        return {}
    job, taken = session.job(drawn), {}
    for pair in plan.models.pairs:
        if pair.target.depth is not None:
            taken[pair.target.tower, pair.target.depth] = pair.base.depth
    found = likeness(job.base, job.target, _sites(plan.models), job.batches())
    return {
        "paths": {tower: [taken.get((tower, l)) for l in range(len(matrix))] for tower, matrix in found.items()},
        "cka": {tower: matrix.round(4).tolist() for tower, matrix in found.items()},
    }


def _sites(models: PortModels) -> tuple[list[Site], list[Site]]:
    """Return all sites of the base and of the target, but those of towers that are left alone."""
    dropped = _left_alone(models)
    base, target = ([s for s in each.sites(every=True) if s.tower not in dropped] for each in models.each[1:])
    return base, target


def _left_alone(models: PortModels) -> set[str]:
    """Return the towers to which nothing moves, although they are there."""
    return models.optional_towers - {pair.target.tower for pair in models.pairs}
