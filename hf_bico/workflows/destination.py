"""Where a result is pushed to, checked before the work begins."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hf_bico.core.errors import PortError, setting
from hf_bico.io.changes.delta import REPORT_FILE
from hf_bico.io.changes.forms import Form
from hf_bico.io.hub import Hub
from hf_bico.io.outside import at
from hf_bico.io.reference import Lineage, Pinned
from hf_bico.workflows.choices import PushChoices

OPENS = re.compile(
    r"(open_clip_model|model|delta|adapter_model)[\w.-]*\.safetensors(\.index\.json)?"
    r"|(adapter_|open_clip_)?config\.json|recipe\.yaml"
)
"""Weights and configs of a model, a delta or an adapter, and what made it."""


@dataclass(frozen=True)
class Destination:
    """Where a result will be pushed, and the commit that was that repo's head when the work began."""

    repo: str
    parent: str | None
    """The commit that was the head; None for a new repo."""
    files: tuple[str, ...]
    """Names of the files in that commit."""
    message: str
    private: bool | None = None
    create_pr: bool = False

    def left_over(self, opens: re.Pattern[str]) -> list[str]:
        """Return the files of an earlier push, in whatever form, that would open in place of the new ones."""
        return [] if self.create_pr else [name for name in self.files if opens.fullmatch(name)]


@dataclass(frozen=True)
class Purport:
    """What a push claims to be, so that nothing else is ever overwritten."""

    what: str
    """The result in words."""
    default: str
    """The repo's name in the user's own namespace, unless one is given."""
    message: str
    """The commit's message, unless one is given."""
    is_mine: Callable[[Pinned], bool]
    """Whether a repo's head is an earlier push of the same."""


def purport_of(
    lineage: Lineage, hub: Hub, form: Form, same: Callable[[Mapping[str, Any]], bool] = lambda report: True
) -> Purport:
    """Return what the push of a port claims to be.

    Args:
        same: whether an earlier report, of models with these names, is of the same fine-tune.
    """

    def is_mine(head: Pinned) -> bool:
        report = hub.json(head, REPORT_FILE)
        return same(report) and all(
            at(report, "lineage", role, "name") == getattr(lineage, role).name for role in ("source", "target")
        )

    default = "-on-".join(pinned.name.split("/")[-1] for pinned in (lineage.source, lineage.target))
    default += "" if form is Form.MODEL else f"-{form}"
    names = f"{lineage.source.name} to {lineage.target.name}"
    return Purport(f"a port of {names}", default, f"Port {names}", is_mine)


def is_wanted(push: PushChoices) -> bool:
    """Return whether a push was asked for.

    Raises:
        PortError: options of a push are given without a push, or an empty name of a repo.
    """
    if not push.push and push.push_to is None:
        if push.private or push.create_pr or push.commit_message is not None:
            raise PortError(
                f"{setting('private')}, {setting('create_pr')} and {setting('commit_message')} are about a push: add "
                f"{setting('push')} or {setting('push_to')}"
            )
        return False
    if push.push_to == "":
        raise PortError(f"{setting('push_to')} needs the name of a repo")
    return True


def destination_of(purport: Purport, hub: Hub, push: PushChoices) -> Destination | None:
    """Return the repo to push to, and its head now; None if no push was asked for.

    Raises:
        PortError: no token; the repo may not be written to, or holds something else than an earlier push of the same.
    """
    if not is_wanted(push):
        return None
    another = f"name another with {setting('push_to')}"
    user, namespaces = hub.writer()
    repo = push.push_to or f"{user}/{purport.default}"
    head = hub.existing(repo)
    if repo.split("/")[0] not in namespaces and not (head and push.create_pr):
        raise PortError(f"{user} may not write to {repo}: name a repo of yours with {setting('push_to')}")
    if head is not None and push.private and not hub.is_private(repo):
        raise PortError(f"{repo} exists and is public, so {setting('private')} cannot hold: {another}")
    files = head.files if head else ()
    taken = set(files) - {".gitattributes", "README.md"}
    if head and taken and not push.create_pr and not purport.is_mine(head):
        raise PortError(
            f"{repo} holds something that is not {purport.what}: {another}, or propose it with {setting('create_pr')}"
        )
    message = push.commit_message or purport.message
    parent = head.commit if head else None
    return Destination(repo, parent, files, message, push.private or None, push.create_pr)
