"""A thin layer over the Hub's client: resolve, fetch and push, with every error in one line."""

import re
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    get_token,
)
from huggingface_hub import errors as hub_errors
from huggingface_hub.file_download import repo_folder_name

from hf_bico import __version__
from hf_bico.core.errors import PortError, listed, setting
from hf_bico.io.cards import CARD, Card, card_of
from hf_bico.io.commits import UNREADABLE, Commit, create
from hf_bico.io.hints import hinting
from hf_bico.io.hub_errors import one_line
from hf_bico.io.nested import flattened, linked
from hf_bico.io.outside import at, read_object, require_readable
from hf_bico.io.patience import be_patient
from hf_bico.io.reference import BESIDE, ROWS, Pinned, Reference, errors_about


class Moved(PortError):
    """Raised where a repo has another head than was seen when the work began."""


class About(NamedTuple):
    """What the Hub says of a repo."""

    is_open: bool
    """Whether everybody may read it: it is neither private nor gated."""
    tags: tuple[str, ...]


class Hub:
    """The Hub's client under this tool's name, with a token that is never shown, and errors that users can act on.

    Raises:
        PortError: the token cannot be one.
    """

    def __init__(self, token: str | None = None) -> None:
        if not re.fullmatch(r"[!-~]*", token or get_token() or ""):
            raise PortError(
                f"the token has characters that no token has; copy it again ({setting('token')} or HF_TOKEN)"
            )
        be_patient()
        self.token = token
        self.api = HfApi(token=token, library_name="hf_bico", library_version=__version__)
        self.headers: dict[tuple[str, str, str], dict[str, tuple[tuple[int, ...], str]]] = {}
        """(repo, commit, file) → shape and dtype of every tensor in a file of weights that was looked at."""

    def resolve(self, text: str, kind: str = "model") -> Pinned:
        """Return a reference pinned to the commit that it stands for now; offline, as this machine's cache has it.

        Args:
            text: see `Reference`.
            kind: "model" or "dataset".

        Raises:
            PortError: the repo is unknown, private or gated, the revision is unknown, or there is no network.
        """
        ref = Reference.of_data(text) if kind == "dataset" else Reference.parse(text)
        if ref.file is not None:
            return self._of_file(ref, text)
        if ref.folder is not None:
            files = tuple(sorted(p.relative_to(ref.folder).as_posix() for p in ref.folder.rglob("*") if p.is_file()))
            return flattened(Pinned(ref.name, None, files, ref.folder, kind))
        if constants.HF_HUB_OFFLINE and (cached := of_cache(ref, kind)):
            return flattened(cached)
        if ref.kind not in (None, kind):
            raise PortError(f"{text} is a {ref.kind}, and a {kind} belongs here")
        with (
            self.hub_errors_as_one_line(f"{kind} {text.removeprefix('hf://')}", ref.name, kind),
            hinting(self.api, ref.name, kind),
        ):
            info = self.api.repo_info(ref.name, revision=ref.revision, repo_type=kind)
            if info.gated:
                self.api.auth_check(ref.name, repo_type=kind)
            found = Pinned(ref.name, info.sha, _files(info), kind=kind)
        return flattened(found)

    def _of_file(self, ref: Reference, text: str) -> Pinned:
        """Return a file of samples, and what tells of its classes and prompts beside it.

        Raises:
            PortError: the repo has no such file.
        """
        file = ref.file
        assert file is not None  # only files come here
        if ref.folder is not None:
            there = tuple(name for name in (file, *BESIDE) if (ref.folder / name).is_file())
            return Pinned(ref.name, None, there, ref.folder, "dataset", file=file)
        whole = self.resolve(text.removesuffix(f":{file}"), "dataset")
        if file not in whole.files:
            some = [name for name in whole.files if name.endswith(tuple(ROWS))]
            raise PortError(f"{whole} has no file {file!r}; it has {listed(some) or 'none of samples'}")
        return replace(whole, file=file)

    def fetch(self, pinned: Pinned, names: tuple[str, ...]) -> Path:
        """Fetch those of the files `names` that a repo has, and return the folder that holds them.

        Raises:
            PortError: they cannot be fetched or saved; a model's JSON is not fit to be read (`hf_bico.io.outside`).
        """
        folder = pinned.folder or self._downloaded(pinned, names)
        folder = linked(folder, names, pinned.above) if pinned.above else folder
        with errors_about(pinned):
            for name in names if pinned.kind == "model" else ():
                if name.endswith(".json") and (folder / name).is_file():
                    require_readable(folder / name)
        return folder

    def _downloaded(self, pinned: Pinned, names: Iterable[str]) -> Path:
        with self.hub_errors_as_one_line(str(pinned), pinned.name, pinned.kind):
            places = {name: pinned.place(name) for name in names}
            whole = self.api.snapshot_download(
                pinned.name, repo_type=pinned.kind, revision=pinned.commit, allow_patterns=list(places.values())
            )
            folder = Path(whole) / pinned.subfolder
            for name, place in places.items():
                if name in pinned.files and not (folder / name).exists():
                    # the client goes by the Hub's list of files, and keeps a list that was wrong
                    self.api.hf_hub_download(pinned.name, place, repo_type=pinned.kind, revision=pinned.commit)
            return folder

    def card(self, pinned: Pinned) -> Card:
        """Return what a repo's card says; empty without a card.

        Raises:
            PortError: the card's YAML cannot be read.
        """
        if CARD not in pinned.files:
            return Card()
        text = (self.fetch(pinned, (CARD,)) / CARD).read_text(encoding="utf-8", errors="replace")
        return card_of(text, f"the card of {pinned}")

    def json(self, pinned: Pinned, name: str) -> dict[str, Any]:
        """Return the JSON object in a repo's file; empty where there is no such file.

        Raises:
            PortError: it is no JSON object.
        """
        if name not in pinned.files:
            return {}
        folder = self.fetch(pinned, (name,))
        with errors_about(pinned):
            return read_object(folder / name)

    def writer(self) -> tuple[str, set[str]]:
        """Return the token's owner, and the namespaces to push to: the owner's and their organisations'.

        Raises:
            PortError: there is no token, or it may only read.
        """
        with self.hub_errors_as_one_line("the Hub", None, "model"):
            try:
                me = self.api.whoami()
            except hub_errors.LocalTokenNotFoundError as error:
                raise PortError(
                    f"pushing needs a token: run `hf auth login`, or give {setting('token')} or HF_TOKEN"
                ) from error
            name, names = str(me["name"]), {str(org["name"]) for org in me.get("orgs", [])}
        if at(me, "auth", "accessToken", "role") == "read":
            raise PortError("pushing needs a token that may write; this one may only read")
        return name, {name, *names}

    def existing(self, repo: str, kind: str = "model") -> Pinned | None:
        """Return a repo pinned to its head; None where there is no such repo."""
        with self.hub_errors_as_one_line(repo, repo, kind):
            if not self.api.repo_exists(repo, repo_type=kind):
                return None
        return self.resolve(f"hf://{repo}", kind)

    def is_private(self, repo: str) -> bool:
        """Return whether a model repo is private."""
        with self.hub_errors_as_one_line(repo, repo, "model"):
            return bool(self.api.repo_info(repo).private)

    def about(self, pinned: Pinned) -> About:
        """Return what the Hub says of a repo."""
        with self.hub_errors_as_one_line(pinned.name, pinned.name, pinned.kind):
            info: Any = self.api.repo_info(pinned.name, revision=pinned.commit, repo_type=pinned.kind)
        return About(not (info.private or getattr(info, "gated", False)), tuple(info.tags or ()))

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
        kind: str = "model",
    ) -> str:
        """Push a folder as one commit (or one pull request) on top of `parent`, and return its URL.

        Args:
            parent: the head that was seen when the work began; None for a repo that did not exist.
            private: for a new repo; None: as the Hub's settings say.
            stale: files of that head to delete, unless the folder has them.
            kind: "model" or "dataset".

        Raises:
            PortError: the head has moved (`Moved`), and nothing is overwritten; the Hub refuses.
        """
        files = [
            CommitOperationAdd(path.relative_to(folder).as_posix(), path)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        ]
        gone = [CommitOperationDelete(name) for name in sorted(set(stale) - {file.path_in_repo for file in files})]
        with self.hub_errors_as_one_line(repo, repo, kind), ExitStack() as undo:
            try:
                if parent is None:
                    undo.callback(self._remove_if_empty, repo, kind)
                    create(self.api, repo, kind, private)
                    parent = self.api.repo_info(repo, repo_type=kind).sha
                url = Commit(self.api, repo, kind, [*files, *gone], message, parent, create_pr).send()
            except hub_errors.HfHubHTTPError as error:
                if error.response.status_code in (409, 412):
                    undo.pop_all()  # the repo is not ours to remove
                    raise Moved(
                        f"{repo} has moved since this began; nothing was pushed: look at it, then run the command again"
                    ) from error
                raise
            undo.pop_all()
        return url

    def _remove_if_empty(self, repo: str, kind: str) -> None:
        """Remove a repo that was just created, if nothing was committed to it and the Hub answers."""
        with suppress(hub_errors.HTTPError, *UNREADABLE):
            if set(_files(self.api.repo_info(repo, repo_type=kind))) <= {".gitattributes"}:
                self.api.delete_repo(repo, repo_type=kind)

    def hub_errors_as_one_line(self, what: str, repo: str | None, kind: str):
        """Turn the client's errors into one line that says what to do, while the block runs.

        Args:
            what: what to call the repo in errors.
            repo: its name, to ask for access at.
            kind: "model" or "dataset".
        """
        return one_line(self.api.endpoint, what, repo, kind)


def _files(info: Any) -> tuple[str, ...]:
    """Return the names of a repo's files from the Hub's information on it."""
    return tuple(file.rfilename for file in info.siblings)


def cached_commit(repo: str, kind: str = "model") -> str | None:
    """Return the one commit of a repo in this machine's cache; None where there are several or none.

    It is what a live model was opened from if the model does not know, as transformers does not always keep it.
    """
    folder = _cache(repo, kind) / "snapshots"
    found = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return found[0] if len(found) == 1 else None


def opened_from(model: Any, commit: str | None = None) -> str | None:
    """Return a reference to what a live model was opened from, by its own config; None if that does not say.

    Args:
        commit: its commit, if known; None: as the model or the cache knows.
    """
    config = getattr(model, "config", None)
    name = getattr(config, "_name_or_path", "") or ""
    if not name or Path(name).is_dir():
        return name or None
    commit = commit or getattr(config, "_commit_hash", None) or cached_commit(name)
    return f"hf://{name}" + (f"@{commit}" if commit else "")


def of_cache(ref: Reference, kind: str) -> Pinned | None:
    """Return a reference pinned to a commit in the cache, None if that has none that fits.

    It is the commit named, or where the branch or tag was last seen, or the only one.
    """
    place = _cache(ref.name, kind)
    seen = place / "refs" / (ref.revision or "main")
    commit = seen.read_text().strip() if seen.is_file() else ref.revision or cached_commit(ref.name, kind)
    folder = place / "snapshots" / (commit or "none")
    if not folder.is_dir():
        return None
    files = tuple(sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()))
    return Pinned(ref.name, commit, files, kind=kind)


def _cache(repo: str, kind: str) -> Path:
    """Return a repo's folder in this machine's cache."""
    return Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repo, repo_type=kind))
