"""The Hub as a thin layer: resolve, fetch, push, with every refusal in one line."""

import json
import re
from collections.abc import Iterable
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import yaml
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelCard,
    ModelCardData,
    constants,
    get_token,
)
from huggingface_hub import errors as hub_errors
from huggingface_hub.file_download import repo_folder_name

from hf_bico import __version__
from hf_bico.core.errors import PortError, setting
from hf_bico.io.reference import Pinned, Reference


class Hub:
    """The real client with our name, a token that is never shown, and errors that a user can act on."""

    def __init__(self, token: str | None = None) -> None:
        if not re.fullmatch(r"[!-~]*", token or get_token() or ""):
            raise PortError(
                f"the token has characters that no token has; copy it again ({setting('token')} or HF_TOKEN)"
            )
        self.token = token
        self.api = HfApi(token=token, library_name="hf_bico", library_version=__version__)

    def resolve(self, text: str, kind: str = "model") -> Pinned:
        """Return the commit that a reference stands for now, and its files; offline, what this machine's cache
        has of it.

        Raises:
            PortError: unknown, private or gated repo, unknown revision, no network.
        """
        ref = Reference.parse(text)
        if ref.folder is not None:
            files = tuple(sorted(p.relative_to(ref.folder).as_posix() for p in ref.folder.rglob("*") if p.is_file()))
            return Pinned(ref.name, None, files, ref.folder, kind)
        if constants.HF_HUB_OFFLINE and (cached := of_cache(ref, kind)):
            return cached
        with self.hub_errors_as_one_line(f"{kind} {text.removeprefix('hf://')}", ref.name, kind):
            info = self.api.repo_info(ref.name, revision=ref.revision, repo_type=kind)
            if info.gated:
                self.api.auth_check(ref.name, repo_type=kind)
        return Pinned(ref.name, info.sha, _files(info), kind=kind)

    def fetch(self, pinned: Pinned, names: tuple[str, ...]) -> Path:
        """Return a folder that holds those of `names` that the repo has."""
        if pinned.folder is not None:
            return pinned.folder
        with self.hub_errors_as_one_line(str(pinned), pinned.name, pinned.kind):
            return Path(
                self.api.snapshot_download(
                    pinned.name, repo_type=pinned.kind, revision=pinned.commit, allow_patterns=list(names)
                )
            )

    def card(self, pinned: Pinned) -> ModelCardData:
        """Return the metadata of the repo's card; empty without a card.

        Raises:
            PortError: the card's YAML cannot be read.
        """
        if "README.md" not in pinned.files:
            return ModelCardData()
        text = (self.fetch(pinned, ("README.md",)) / "README.md").read_text(encoding="utf-8", errors="replace")
        try:
            return cast(ModelCardData, ModelCard(text, ignore_metadata_errors=True).data)
        except (ValueError, yaml.YAMLError) as error:
            raise PortError(f"the card of {pinned} has no readable YAML: {_line(error)}") from error

    def json(self, pinned: Pinned, name: str) -> dict[str, Any]:
        """Return a JSON object that lies in the repo; empty where there is none that can be read."""
        if name not in pinned.files:
            return {}
        try:
            data = json.loads((self.fetch(pinned, (name,)) / name).read_text(encoding="utf-8"))
        except ValueError:
            return {}
        return data if isinstance(data, dict) else {}

    def writer(self) -> tuple[str, set[str]]:
        """Return the token's owner, and the namespaces that may be written to: their own and their organisations'.

        Raises:
            PortError: no token, or one that may only read.
        """
        with self.hub_errors_as_one_line("the Hub", None, "model"):
            try:
                me = self.api.whoami()
            except hub_errors.LocalTokenNotFoundError as error:
                raise PortError(
                    f"pushing needs a token: run `hf auth login`, or give {setting('token')} or HF_TOKEN"
                ) from error
        if me.get("auth", {}).get("accessToken", {}).get("role") == "read":
            raise PortError("pushing needs a token that may write; this one may only read")
        return me["name"], {me["name"], *(org["name"] for org in me.get("orgs", []))}

    def existing(self, repo: str) -> Pinned | None:
        """Return the model repo's head, None where there is none."""
        with self.hub_errors_as_one_line(repo, repo, "model"):
            if not self.api.repo_exists(repo):
                return None
        return self.resolve(f"hf://{repo}")

    def is_private(self, repo: str) -> bool:
        with self.hub_errors_as_one_line(repo, repo, "model"):
            return bool(self.api.repo_info(repo).private)

    def push(
        self,
        folder: Path,
        repo: str,
        *,
        parent: str | None,
        message: str,
        private: bool | None = None,
        create_pr: bool = False,
        stale: Iterable[str] = (),
    ) -> str:
        """Return the folder as one commit (or one pull request) on top of `parent`; its URL.

        Args:
            parent: the head that was seen when the work began, None for a repo that did not exist.
            stale: files of that head that go, unless the folder has them.

        Raises:
            PortError: the head is another one now; nothing is overwritten.
        """
        files = [
            CommitOperationAdd(path.relative_to(folder).as_posix(), path)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        ]
        gone = [CommitOperationDelete(name) for name in sorted(set(stale) - {file.path_in_repo for file in files})]
        with self.hub_errors_as_one_line(repo, repo, "model"), ExitStack() as undo:
            try:
                if parent is None:
                    undo.callback(self._remove_if_empty, repo)
                    self.api.create_repo(repo, private=private)
                    parent = self.api.repo_info(repo).sha
                commit = self.api.create_commit(
                    repo, [*files, *gone], commit_message=message, parent_commit=parent, create_pr=create_pr
                )
            except hub_errors.HfHubHTTPError as error:
                if error.response.status_code in (409, 412):
                    undo.pop_all()  # it is not ours
                    raise PortError(
                        f"{repo} has moved since this began; nothing was pushed. Look at it, then run the command again"
                    ) from error
                raise
            undo.pop_all()
        return commit.pr_url or commit.commit_url

    def _remove_if_empty(self, repo: str) -> None:
        """Take back a repo that we made, as long as nothing was committed to it and the Hub answers."""
        with suppress(hub_errors.HTTPError):
            if set(_files(self.api.repo_info(repo))) <= {".gitattributes"}:
                self.api.delete_repo(repo)

    @contextmanager
    def hub_errors_as_one_line(self, what: str, repo: str | None, kind: str):
        """Turns the client's errors into one line with the way out."""
        try:
            yield
        except hub_errors.GatedRepoError as error:  # a RepositoryNotFoundError too: first
            prefix = "" if kind == "model" else f"{kind}s/"
            raise PortError(
                f"{what} is gated: ask for access at {self.api.endpoint}/{prefix}{repo}, then give "
                f"a token that has it ({setting('token')} or HF_TOKEN)"
            ) from error
        except hub_errors.RevisionNotFoundError as error:
            raise PortError(f"{what}: no such revision") from error
        except hub_errors.RepositoryNotFoundError as error:
            raise PortError(
                f"{what} was not found on {self.api.endpoint}; if it is private, give a token that may "
                f"read it ({setting('token')} or HF_TOKEN)"
            ) from error
        except hub_errors.OfflineModeIsEnabled as error:
            raise PortError(
                f"{what} is on the Hub, and HF_HUB_OFFLINE is set: give local folders, or unset it"
            ) from error
        except hub_errors.LocalEntryNotFoundError as error:
            raise PortError(f"{what} cannot be had: the network failed") from error
        except (hub_errors.SafetensorsParsingError, hub_errors.NotASafetensorsRepoError) as error:
            raise PortError(f"{what}: its weights are not readable safetensors") from error
        except hub_errors.HFValidationError as error:
            raise PortError(f"{what}: {_line(error)}") from error
        except hub_errors.HfHubHTTPError as error:
            if error.response.status_code == 401:
                raise PortError(
                    f"{self.api.endpoint} does not accept the token: run `hf auth login`, or give "
                    f"another with {setting('token')} or HF_TOKEN"
                ) from error
            raise PortError(f"{what}: the Hub refused: {_line(error)}") from error
        except hub_errors.HTTPError as error:
            raise PortError(
                f"no answer from {self.api.endpoint} ({_line(error)}); check the network or HF_ENDPOINT"
            ) from error
        except OSError as error:
            raise PortError(f"{what} could not be kept on this machine: {_line(error)}") from error


def _files(info: Any) -> tuple[str, ...]:
    """Return the names of a repo's files, from what the Hub says of it."""
    return tuple(file.rfilename for file in info.siblings)


def cached_commit(repo: str, kind: str = "model") -> str | None:
    """Return the commit of a repo that lies in this machine's cache, None where several do or none: what a live
    model was
    opened from, which transformers does not keep."""
    folder = _cache(repo, kind) / "snapshots"
    found = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return found[0] if len(found) == 1 else None


def opened_from(model: Any, commit: str | None = None) -> str | None:
    """Return what a live model says that it was opened from, as a reference; None if it says nothing.

    Args:
        commit: its commit, where that is known; else what the model or the cache knows.
    """
    config = getattr(model, "config", None)
    name = getattr(config, "_name_or_path", "") or ""
    if not name or Path(name).is_dir():
        return name or None
    commit = commit or getattr(config, "_commit_hash", None) or cached_commit(name)
    return f"hf://{name}" + (f"@{commit}" if commit else "")


def of_cache(ref: Reference, kind: str) -> Pinned | None:
    """Return a reference as the cache has it: at its commit, where its branch or tag was last seen, or the only one."""
    place = _cache(ref.name, kind)
    seen = place / "refs" / (ref.revision or "main")
    commit = seen.read_text().strip() if seen.is_file() else ref.revision or cached_commit(ref.name, kind)
    folder = place / "snapshots" / (commit or "none")
    if not folder.is_dir():
        return None
    files = tuple(sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()))
    return Pinned(ref.name, commit, files, kind=kind)


def _cache(repo: str, kind: str) -> Path:
    return Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repo, repo_type=kind))


def _line(error: Exception) -> str:
    """Return an error's text as one line."""
    return " ".join(str(error).split())
