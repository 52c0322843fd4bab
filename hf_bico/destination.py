"""Where a port is pushed to, looked at before the work begins."""

from dataclasses import dataclass

from hf_bico.core.errors import PortError
from hf_bico.forms import MODEL
from hf_bico.io.hub import Hub
from hf_bico.report import REPORT_FILE, Lineage


@dataclass(frozen=True)
class Destination:
    """Where a port will be pushed, and the commit that was that repo's head when the work began."""

    repo: str
    parent: str | None


def destination_of(lineage: Lineage, hub: Hub, *, push: bool, push_to: str | None, private: bool | None,
                   create_pr: bool, commit_message: str | None, form: str = MODEL) -> Destination | None:
    """Where to push, if a push was asked for.

    Raises:
        PortError: no token, or the repo holds something that is not an earlier push of this same port.
    """
    if not push and push_to is None:
        if private or create_pr or commit_message is not None:
            raise PortError("--private, --create-pr and --commit-message are about a push: add --push or --push-to")
        return None
    if push_to == "":
        raise PortError("--push-to needs the name of a repo")
    user, namespaces = hub.writer()
    names = [pinned.name.split("/")[-1] for pinned in (lineage.source, lineage.target)]
    repo = push_to or f"{user}/{names[0]}-on-{names[1]}" + ("" if form == MODEL else f"-{form}")
    head = hub.existing(repo)
    if repo.split("/")[0] not in namespaces and not (head and create_pr):
        raise PortError(f"{user} may not write to {repo}: name a repo of yours with --push-to")
    if head is not None and private and not hub.is_private(repo):
        raise PortError(f"{repo} exists and is public, so --private cannot hold: name another with --push-to")
    if head is not None and not create_pr and set(head.files) - {".gitattributes", "README.md"}:
        report = hub.json(head, REPORT_FILE)
        said = report.get("lineage", {})
        if any(said.get(role, {}).get("name") != getattr(lineage, role).name for role in ("source", "target")):
            raise PortError(f"{repo} holds something that is not a port of {lineage.source.name} to "
                            f"{lineage.target.name}: name another with --push-to, or propose it with --create-pr")
        before = report.get("task_vector", {}).get("written", {}).get("form", MODEL)
        if before != form:
            raise PortError(f"{repo} holds this port as {before}, whose files would stay beside the {form}'s: name "
                            "another with --push-to")
    return Destination(repo, head and head.commit)
