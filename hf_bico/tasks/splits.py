"""A dataset at one commit and its splits, of which no more is read than is asked for."""

import sys
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from glob import escape
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, Protocol

import datasets
import fsspec
import pyarrow.parquet as pq
from datasets.exceptions import DatasetGenerationError
from datasets.packaged_modules.audiofolder.audiofolder import AudioFolder
from datasets.packaged_modules.cache.cache import Cache
from datasets.packaged_modules.parquet.parquet import Parquet
from huggingface_hub import errors as hub_errors

from hf_bico.core.errors import PortError, setting
from hf_bico.io.cards import CARD, metadata_of
from hf_bico.io.hub import Hub
from hf_bico.io.outside import read_object
from hf_bico.io.reference import ROWS, Pinned, errors_about
from hf_bico.tasks.slices import Part

INFOS = "dataset_infos.json"
"""What old repos describe their data in."""
WINDOW, IMAGE_WINDOW = 10_000, 2_000
"""How many first rows of a streamed split are drawn from, and how many of one with images or sounds."""
MOST_OF_A_FILE = 10
"""Of a slice that is all read, the files are fetched whole if it is more than one part in so many."""


def _hears(features: datasets.Features | None) -> bool:
    return any(isinstance(feature, datasets.Audio) and feature.decode for feature in (features or {}).values())


class Audio(datasets.Audio):
    """A column of sounds as the bytes of their files, or where these lie: `datasets` reads and writes them by a library
    of its own, which is not needed so.
    """

    def encode_example(self, value: Any) -> dict[str, Any]:
        given = value if isinstance(value, dict) else {"path": str(value)}
        return {"bytes": given.get("bytes"), "path": given.get("path")}


def undecoded(features: datasets.Features) -> datasets.Features:
    """Return features whose sounds come as files."""
    quiet = Audio(decode=False)
    return datasets.Features({n: quiet if isinstance(f, datasets.Audio) else f for n, f in features.items()})


class Split(Protocol):
    """Rows of a split by index, decoded one at a time."""

    features: datasets.Features
    num_rows: int
    window: int | None
    """How many first rows of a streamed split these are; None for any other split."""

    def rows(self, indices: Sequence[int], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield the rows at these indices, in their order, with these columns alone."""
        ...

    def column(self, name: str) -> list[Any]:
        """Return all values of a column; no other is read."""
        ...


class ArrowSplit:
    """A split that `datasets` brought into its cache; only the rows asked for are decoded."""

    window: int | None = None

    def __init__(self, dataset: datasets.Dataset) -> None:
        dataset = dataset.cast(undecoded(dataset.features)) if _hears(dataset.features) else dataset
        self.dataset, self.features, self.num_rows = dataset, dataset.features, dataset.num_rows

    def rows(self, indices: Sequence[int], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        dataset = self.dataset.select_columns(list(columns))
        return (dataset[int(index)] for index in indices)

    def column(self, name: str) -> list[Any]:
        return self.dataset.select_columns([name])[:][name]


class StreamedSplit(ArrowSplit):
    """The first rows of a split, or of a slice of it; no more of its files is read than holds them."""

    def __init__(
        self, stream: datasets.IterableDataset, window: int | None = None, rows: range = range(sys.maxsize)
    ) -> None:
        features = stream.features  # None where the files do not say: the rows tell then
        kinds = (datasets.Image, datasets.Audio)
        images = any(isinstance(feature, kinds) for feature in (features or {}).values())
        size = window or (IMAGE_WINDOW if images else WINDOW)
        end = min(rows.stop, rows.start + size)
        found = list(islice(stream.decode(False) if features else stream, rows.start, end))
        super().__init__(datasets.Dataset.from_list(found, features=features))
        self.window = self.num_rows


class ParquetSplit:
    """A split in parquet files, local or remote: footers first, then the row groups and columns that are asked for."""

    window: int | None = None

    def __init__(self, urls: Sequence[str], storage: dict[str, Any], features: datasets.Features | None = None) -> None:
        self.files = [pq.ParquetFile(self._open(url, storage), pre_buffer=True) for url in urls]
        self.features = undecoded(features or datasets.Features.from_arrow_schema(self.files[0].schema_arrow))
        self.groups = [(file, group) for file in self.files for group in range(file.num_row_groups)]
        sizes = [file.metadata.row_group(group).num_rows for file, group in self.groups]
        self.starts = [0, *accumulate(sizes)]
        self.num_rows = self.starts[-1]

    @staticmethod
    def _open(url: str, storage: dict[str, Any]):
        fs, path = fsspec.url_to_fs(url, **(storage if url.startswith("hf://") else {}))
        return fs.open(path, cache_type="none")  # read what is asked for, never a block ahead

    def rows(self, indices: Sequence[int], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        features = datasets.Features({name: self.features[name] for name in columns})
        held: int | None = None
        table: Any = None
        for index in indices:
            group = bisect_right(self.starts, index) - 1
            if group != held:
                file, number = self.groups[group]
                held, table = group, file.read_row_group(number, columns=list(columns))
            row = table.slice(int(index) - self.starts[group], 1).to_pylist()[0]
            yield features.decode_example(row)

    def column(self, name: str) -> list[Any]:
        return [value for file in self.files for value in file.read(columns=[name]).column(0).to_pylist()]


class Kept:
    """Some rows of a split, numbered anew."""

    def __init__(self, split: Split, kept: Sequence[int]) -> None:
        self.split, self.kept = split, kept
        self.features, self.num_rows, self.window = split.features, len(kept), split.window

    def rows(self, indices: Sequence[int], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        return self.split.rows([self.kept[index] for index in indices], columns)

    def column(self, name: str) -> list[Any]:
        values = self.split.column(name)
        return [values[index] for index in self.kept]


class HubDataset:
    """A dataset repo at one commit, a local dataset folder, or one file of either."""

    def __init__(self, hub: Hub, pinned: Pinned, config: str | None = None, *, streaming: bool = False) -> None:
        """Open the dataset; no rows are read yet.

        Args:
            config: the dataset's configuration.
            streaming: of splits whose files are not parquet, read the first rows in place of all.

        Raises:
            PortError: the dataset cannot be opened.
        """
        self.hub, self.pinned, self.streaming = hub, pinned, streaming
        self.config: str | None = None
        """Name of the configuration; a single file has none."""
        if pinned.file is not None:
            self._open_file(pinned.file, config)
            return
        path = f"hf://datasets/{pinned.name}" if pinned.folder is None else str(pinned.folder)
        self._check_cards()
        with self._errors_as_one_line():
            self.builder = datasets.load_dataset_builder(path, config, revision=pinned.commit, token=hub.token)
        if isinstance(self.builder, Cache):  # what `datasets` falls back to: it may be of any commit
            raise PortError(f"no answer from {hub.api.endpoint} for dataset {pinned}; check the network or HF_ENDPOINT")
        self.config = self.builder.config.name

    def _open_file(self, file: str, config: str | None) -> None:
        pinned, name = self.pinned, file.lower()
        if config is not None:
            raise PortError(f"{pinned} is a file, which has no configurations: leave out {setting('config')}")
        at_hub = f"hf://datasets/{pinned.name}@{pinned.commit}/{file}"
        place = escape(str(pinned.folder / file) if pinned.folder else at_hub)
        options: dict[str, Any] = {"sep": "\t"} if name.endswith(".tsv") else {}
        loader = next(loader for end, loader in ROWS.items() if name.endswith(end))
        with self._errors_as_one_line():
            self.builder = datasets.load_dataset_builder(loader, data_files=place, token=self.hub.token, **options)

    def _check_cards(self) -> None:
        """Refuse a repo whose card or other description is not fit to be read, before `datasets` reads it."""
        there = tuple(name for name in (CARD, datasets.config.REPOYAML_FILENAME, INFOS) if name in self.pinned.files)
        folder = self.hub.fetch(self.pinned, there) if there else Path()
        for name in there:
            with errors_about(self.pinned):
                if name == INFOS:
                    read_object(folder / name)
                    continue
                text = (folder / name).read_text(encoding="utf-8", errors="replace")
                metadata_of(text if name == CARD else f"---\n{text}\n---\n", name)

    @property
    def splits(self) -> list[str]:
        """Names of the splits."""
        return [str(name) for name in (self.builder.config.data_files or self.builder.info.splits or {})]

    def split(self, name: str, *, whole: bool = False) -> Split:
        """Return a split by name, or a part of one: `train[:80%]`; the rows of a part are numbered from 0.

        Args:
            whole: whether all of it will be read, so that its files are downloaded once and cached.

        Raises:
            PortError: there is none of that name, no such part, or it cannot be read.
        """
        part = Part.of(name)
        if part.base not in self.splits:
            raise PortError(f"{self.pinned} has no split {part.base!r}; it has {', '.join(self.splits) or 'none'}")
        with self._errors_as_one_line():
            sliced = part.part is not None and not part.divided
            if self.streaming and not isinstance(self.builder, Parquet):
                return self._streamed(part, sliced)
            split = self._opened(part.base, whole and not sliced)
            if sliced:
                rows = part.range(split.num_rows)
                most = whole and len(rows) * MOST_OF_A_FILE > split.num_rows
                return Kept(self._opened(part.base, whole=True) if most else split, rows)
            return Kept(split, part.rows(split.num_rows)) if part.divided else split

    def _opened(self, name: str, whole: bool) -> Split:
        if isinstance(self.builder, Parquet):
            storage = {"token": self.hub.token, "endpoint": self.hub.api.endpoint}
            urls = self.builder.config.data_files[name]
            return ParquetSplit(self._here(urls) if whole else urls, storage, self.builder.info.features)
        self._ready()
        self.builder.download_and_prepare()
        return ArrowSplit(self.builder.as_dataset(split=name))

    def _streamed(self, part: Part, sliced: bool) -> Split:
        self._ready()
        stream = self.builder.as_streaming_dataset(split=part.base)
        if sliced:
            told = (self.builder.info.splits or {}).get(part.base)
            return StreamedSplit(stream, rows=part.range((told and told.num_examples) or None))
        split = StreamedSplit(stream)
        return Kept(split, part.rows(split.num_rows)) if part.divided else split

    def _ready(self) -> None:
        if isinstance(self.builder, AudioFolder):
            self.builder.BASE_FEATURE = Audio

    def _here(self, urls: Sequence[str]) -> list[str]:
        """Return the paths of the same files on this disk."""
        names = [url.split(f"@{self.pinned.commit}/", 1)[-1] for url in urls]
        folder = self.hub.fetch(self.pinned, tuple(names))
        return [str(folder / name) for name in names]

    def text(self, name: str) -> list[str] | None:
        """Return the lines of a text file of the repo, None where there is none."""
        if name not in self.pinned.files:
            return None
        return lines(self.hub.fetch(self.pinned, (name,)) / name)

    @contextmanager
    def _errors_as_one_line(self):
        """Turn errors of `datasets`, and of the client below it, into a `PortError` of one line."""
        with self.hub.hub_errors_as_one_line(f"dataset {self.pinned}", self.pinned.name, "dataset"):
            try:
                yield
            except (PortError, hub_errors.HTTPError):
                raise
            except Exception as error:  # whatever it makes of a card, or of files, that it does not take
                told = error.__cause__ if isinstance(error, DatasetGenerationError) and error.__cause__ else error
                why = " ".join(str(told).split()) or type(told).__name__
                raise PortError(f"dataset {self.pinned} cannot be read: {why}") from error


def lines(path: Path) -> list[str]:
    """Return the lines of a text file that are not blank, stripped.

    Raises:
        PortError: the file cannot be read.
    """
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise PortError(f"{path.name} cannot be read: {error}") from error
