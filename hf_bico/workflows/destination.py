"""Where a port is pushed to, looked at before the work begins."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hf_bico.core.errors import PortError
from hf_bico.io.changes.forms import MODEL
from hf_bico.io.hub import Hub
from hf_bico.io.reference import Lineage, Pinned
from hf_bico.reports.report import REPORT_FILE

OPENS = re.compile(
    r"(open_clip_model|model|delta|adapter_model)[\w.-]*\.safetensors(\.index\.json)?"
    r"|(adapter_|open_clip_)?config\.json"
)
"""Weights and configs of a model, a delta or an adapter."""


@dataclass(frozen=True)
class Destination:
    """Where a port will be pushed, and the commit that was that repo's head when the work began."""

    repo: str
    parent: str | None
    files: tuple[str, ...] = ()
    """Of that head."""

    @property
    def left_over(self) -> list[str]:
        """What an earlier push of the port left, in whatever form: it would open in place of the new files."""
        return [name for name in self.files if OPENS.fullmatch(name)]


def destination_of(
    lineage: Lineage,
    hub: Hub,
    *,
    push: bool,
    push_to: str | None,
    private: bool | None,
    create_pr: bool,
    commit_message: str | None,
    form: str = MODEL,
    same: Callable[[Mapping[str, Any]], bool] = lambda report: True,
) -> Destination | None:
    """Where to push a port, if a push was asked for.

    Args:
        same: whether an earlier report, of models of these names, is of the same fine-tune.

    Raises:
        PortError: no token, or the repo holds something that is not an earlier push of this same port.
    """
    if not push_is_wanted(push, push_to, private, create_pr, commit_message):
        return None

    def is_mine(head: Pinned) -> bool:
        report = hub.json(head, REPORT_FILE)
        said = report.get("lineage", {})
        return same(report) and all(
            said.get(role, {}).get("name") == getattr(lineage, role).name for role in ("source", "target")
        )

    default = "-on-".join(pinned.name.split("/")[-1] for pinned in (lineage.source, lineage.target))
    default += "" if form == MODEL else f"-{form}"
    return repo_to_push_to(
        hub,
        push_to,
        default,
        private=private,
        create_pr=create_pr,
        is_mine=is_mine,
        what=f"a port of {lineage.source.name} to {lineage.target.name}",
    )


def push_is_wanted(
    push: bool, push_to: str | None, private: bool | None, create_pr: bool, commit_message: str | None
) -> bool:
    """Whether a push was asked for.

    Raises:
        PortError: options of a push without one, or no name where one was to be given.
    """
    if not push and push_to is None:
        if private or create_pr or commit_message is not None:
            raise PortError("--private, --create-pr and --commit-message are about a push: add --push or --push-to")
        return False
    if push_to == "":
        raise PortError("--push-to needs the name of a repo")
    return True


def repo_to_push_to(
    hub: Hub,
    push_to: str | None,
    default: str,
    *,
    private: bool | None,
    create_pr: bool,
    is_mine: Callable[[Pinned], bool],
    what: str,
) -> Destination:
    """The repo to push to, and its head now.

    Args:
        default: its name in the user's own namespace, unless one is given.
        is_mine: whether a repo's head is an earlier push of the same.

    Raises:
        PortError: it may not be written, or holds something else.
    """
    user, namespaces = hub.writer()
    repo = push_to or f"{user}/{default}"
    head = hub.existing(repo)
    if repo.split("/")[0] not in namespaces and not (head and create_pr):
        raise PortError(f"{user} may not write to {repo}: name a repo of yours with --push-to")
    if head is not None and private and not hub.is_private(repo):
        raise PortError(f"{repo} exists and is public, so --private cannot hold: name another with --push-to")
    if head is not None and not create_pr and set(head.files) - {".gitattributes", "README.md"} and not is_mine(head):
        raise PortError(
            f"{repo} holds something that is not {what}: name another with --push-to, or propose it with --create-pr"
        )
    return Destination(repo, head and head.commit, head.files if head else ())
