"""One commit, even if its answer is lost: what the Hub has got is recognised, and not sent twice."""

import hashlib
import logging
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub import errors as hub_errors

from hf_bico.core.errors import PortError
from hf_bico.io.patience import BUSY, LOST, WAITS, asked_to_wait

logger = logging.getLogger(__name__)
Operation = CommitOperationAdd | CommitOperationDelete
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError)
"""What is raised where an answer is not the Hub's."""


@dataclass(frozen=True)
class Commit:
    """What is to be committed, and on top of what."""

    api: HfApi
    repo: str
    kind: str
    operations: Sequence[Operation]
    message: str
    parent: str | None
    create_pr: bool

    def send(self) -> str:
        """Make the commit, or find it if the answer was lost, and return its URL, or that of its pull request."""
        return _until_known(self._send, self._found)

    def _send(self) -> str:
        try:
            made = self.api.create_commit(
                self.repo,
                list(self.operations),
                commit_message=self.message,
                parent_commit=self.parent,
                create_pr=self.create_pr,
                repo_type=self.kind,
            )
        except RuntimeError as error:  # of an upload, before anything was committed
            raise _of_upload(error, self.repo) from error
        return made.pr_url or made.commit_url

    def _found(self) -> str | None:
        """Return the URL of this commit if the Hub has it; None if not."""
        place = f"{self.api.endpoint}/{'datasets/' if self.kind == 'dataset' else ''}{self.repo}"
        if not self.create_pr:
            commit = self._landed("main")
            return commit and f"{place}/commit/{commit}"
        refs = self.api.list_repo_refs(self.repo, repo_type=self.kind, include_pull_requests=True)
        for pull in sorted(refs.pull_requests or [], key=lambda each: int(each.ref.rsplit("/", 1)[-1]), reverse=True):
            if self._landed(pull.ref):
                return f"{place}/discussions/{pull.ref.rsplit('/', 1)[-1]}"
        return None

    def _landed(self, revision: str) -> str | None:
        """Return the head of a revision if it is this commit: with its parent, its title, its files and no others."""
        commits = self.api.list_repo_commits(self.repo, repo_type=self.kind, revision=revision)
        if len(commits) < 2 or commits[1].commit_id != self.parent or commits[0].title != self.message:
            return None
        head = commits[0].commit_id
        names = [each.path_in_repo for each in self.operations]
        there = {
            file.path: file
            for file in self.api.get_paths_info(self.repo, names, repo_type=self.kind, revision=head)
            if hasattr(file, "blob_id")
        }
        for each in self.operations:
            file = there.get(each.path_in_repo)
            right = file is not None and _is_of(file, each) if isinstance(each, CommitOperationAdd) else file is None
            if not right:
                return None
        return head


def _of_upload(error: RuntimeError, repo: str) -> Exception:
    """Return why a file was not uploaded: what may be better a moment later, as it was raised; else our own error."""
    why = error.__cause__ or error
    status = why.response.status_code if isinstance(why, hub_errors.HfHubHTTPError) else None
    if isinstance(why, LOST) or status in BUSY:
        assert isinstance(why, Exception)
        return why
    said = re.sub(r"\?\S+", "?…", " ".join(str(why).split()))  # addresses of uploads are signed
    return PortError(f"{repo}: a file could not be uploaded, and nothing was pushed: {said}")


def _is_of(file, operation: CommitOperationAdd) -> bool:
    """Return whether a file on the Hub holds what was sent."""
    if file.lfs is not None:
        return file.lfs.sha256 == operation.upload_info.sha256.hex()
    with operation.as_file() as opened:
        data = opened.read()
    return file.blob_id == hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def create(api: HfApi, repo: str, kind: str, private: bool | None) -> None:
    """Create a repo that was not there; if the answer is lost and there is one now, it is that."""

    def made() -> str:
        return str(api.create_repo(repo, private=private, repo_type=kind))

    _until_known(made, lambda: repo if api.repo_exists(repo, repo_type=kind) else None)


def _until_known(send: Callable[[], str], found: Callable[[], str | None]) -> str:
    """Send what must not be sent twice until it is known to be done.

    Args:
        found: tells what was done if it was, whatever the answer said; None if it was not.
    """
    waits, sent = list(WAITS), 0
    while True:
        try:
            return send()
        except (*LOST, hub_errors.HfHubHTTPError, *UNREADABLE) as error:
            sent += 1
            status = error.response.status_code if isinstance(error, hub_errors.HfHubHTTPError) else None
            refused = status is not None and status not in BUSY and sent == 1
            if refused or isinstance(error, hub_errors.HFValidationError | hub_errors.OfflineModeIsEnabled):
                raise
            known = None
            with suppress(hub_errors.HTTPError, *UNREADABLE):
                known = found()
            if known is not None:
                return known
            if not waits or (status is None and isinstance(error, UNREADABLE)) or (status and status not in BUSY):
                raise
            wait = waits.pop(0)
            if isinstance(error, hub_errors.HfHubHTTPError):
                wait = asked_to_wait(error.response.headers, wait)
            logger.warning("The Hub did not say that the push was done; trying again in %.0f s …", wait)
            time.sleep(min(wait, 300))
