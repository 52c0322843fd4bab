"""Whether weights fit their config, and what a fine-tune may lack or have in another size than its base."""

from collections.abc import Sequence

from hf_bico.core.errors import PortError, listed
from hf_bico.families import Library
from hf_bico.io.checkpoints import check_shapes
from hf_bico.io.models import RepoModel


def check_models(library: Library, models: tuple[RepoModel, ...], tuned: bool = True, *, headed: bool = True) -> None:
    """Refuse weights that do not fit their config. Only the source, the first, needs the layers on top.

    Args:
        tuned: whether the first is a fine-tune; if not, no model needs them.
        headed: whether anything reads them; a model of features may lack its pooler.

    Raises:
        PortError: tensors of a model are missing, of another shape, or unknown; all of them listed.
    """
    source = models[0] if tuned and headed else None
    for each in models:
        top = each.family.on_top(each.skeleton) if each is not source else frozenset()
        unknown = [key for key in each.shapes.stored if key not in each.shapes.used]
        free = resized(models) if each is source else set()
        other = models[1] if each is source else models[0] if tuned and each is models[1] else each
        may = top | free | borrowed(each, other)
        check_shapes(each.pinned, each.shapes.without(top | free), each.skeleton, may, unknown)
    for each in models if library.exact else models[:1] if tuned else ():
        lost = [
            key
            for key in each.shapes.stored
            if key not in each.shapes.used and (library.exact or not each.family.left_reason(key))
        ]
        if lost:
            raise PortError(f"the weights of {each.pinned} do not fit its config: {listed(lost)} is unknown")


def borrowed(model: RepoModel, other: RepoModel) -> set[str]:
    """Return the names of the tensors that a model's files lack and those of its fine-tune or base have, which are
    taken: a language-model head that was not saved with the body, for one; but no linear map of the blocks, and no
    classifier.
    """
    own = {key: tuple(p.shape) for key, p in model.skeleton.named_parameters()}
    sites = {s.key for site in model.sites(every=True) for s in site.slices}
    lacking = other.shapes.keys() - model.shapes.keys() - sites - model.family.on_top(model.skeleton)
    return {key for key in lacking & own.keys() if tuple(other.shapes[key].shape) == own[key]}


def resized(models: Sequence[RepoModel]) -> set[str]:
    """Return the names of the tensors that an adapter holds whole in another shape than its base has, such as
    embeddings of more tokens; a linear map of the blocks is never one.

    Args:
        models: the adapter with its base in it, then the base.
    """
    tuned, base = models[:2]
    if tuned.adapter is None:
        return set()
    sites = {s.key for site in base.sites(every=True) for s in site.slices}
    both = tuned.shapes.keys() & base.shapes.keys()
    return {key for key in both - sites if tuple(tuned.shapes[key].shape) != tuple(base.shapes[key].shape)}
