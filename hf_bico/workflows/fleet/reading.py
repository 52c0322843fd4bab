"""What a plan of a fleet says: a YAML file, read and checked before anything else is looked at."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from hf_bico.core.errors import PortError
from hf_bico.io.outside import parse_yaml
from hf_bico.workflows.config import AlignConfig, PortConfig
from hf_bico.workflows.options import options_of, types_of
from hf_bico.workflows.typed import meant, name_of, shown, text_of, value_of

PARTS = ("output", "push", "ledger", "sources", "targets", "methods", "common", "align", "hardware")
"""What a plan may say at its top."""
OWN = {
    "source": "sources",
    "target": "targets",
    "method": "methods",
    "output": "output",
    "push": "push",
    "push_to": "push",
}
"""Settings of a port that a plan says in a part of its own."""
OF_ALIGN = tuple(
    each.name
    for each in fields(AlignConfig)
    if each.name not in (*OWN, "base", "private", "create_pr", "commit_message")
)
"""Settings of an alignment that a plan may say."""


@dataclass(frozen=True)
class Item:
    """An entry of `sources`, `targets` or `methods`."""

    where: str
    """Its place in the plan, such as sources[1]."""
    value: str
    """Which fine-tune, new base or method it is."""
    name: str | None = None
    """What its cells are called, where that is not made of `value`."""
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Hardware:
    """What a Hugging Face Job runs on; see `huggingface_hub.run_uv_job`."""

    flavor: str | None = None
    timeout: str | None = None
    image: str | None = None
    namespace: str | None = None
    """Who runs the jobs and pays for them; None: the token's owner."""
    dependencies: tuple[str, ...] = ("hf-bico",)
    """What is installed; another version of hf_bico can be named here."""


@dataclass(frozen=True)
class Said:
    """A plan as its file has it, every value of its setting's type."""

    output: Path | None
    """The folder of the ports, and of the ledger unless that is a repo."""
    push: str | bool
    """The namespace that ports are pushed to; True: the token's owner's."""
    ledger: str | None
    """A dataset repo that keeps the ledger."""
    sources: tuple[Item, ...]
    targets: tuple[Item, ...]
    methods: tuple[Item, ...]
    """Empty where none is named."""
    common: Mapping[str, Any]
    align: Mapping[str, Any] | None
    """Settings of the alignments alone; None: none is made."""
    hardware: Hardware


def read(path: Path) -> Said:
    """Return what a plan says.

    Raises:
        PortError: the file cannot be read, a key is unknown, a value is not of its setting's type.
    """
    try:
        return _said(_loaded(path))
    except PortError as error:
        raise PortError(f"{path}: {error.message}") from error


def _loaded(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PortError(f"the plan cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}") from error
    return _mapping("", parse_yaml(text, "the plan"), PARTS)


def _said(data: Mapping[str, Any]) -> Said:
    output, push = text_of("output", data.get("output")), data.get("push") or False
    if push is not True and push is not False:
        push = text_of("push", push) or False
    if isinstance(push, str) and "/" in push:
        raise PortError(f"push: {push!r} is not a namespace: name a user or an organisation alone, or give true")
    ledger = text_of("ledger", data.get("ledger"))
    if ledger is not None and ledger.count("/") != 1:
        raise PortError(f"ledger: {ledger!r} is not a dataset repo like org/name")
    if not output and not push:
        raise PortError("say where the ports go: output, a folder, or push, a namespace on the Hub")
    if not output and not ledger:
        raise PortError("without output there is no folder for the ledger: name a dataset repo with ledger")
    return Said(
        output=Path(output).expanduser() if output else None,
        push=push,
        ledger=ledger,
        sources=tuple(_items("source", data.get("sources"))),
        targets=tuple(_items("target", data.get("targets"))),
        methods=tuple(_items("method", data["methods"])) if "methods" in data else (),
        common=_settings("common", data.get("common") or {}, PortConfig),
        align=_align(data.get("align")),
        hardware=_hardware(data.get("hardware") or {}),
    )


def _items(axis: str, given: Any) -> Iterator[Item]:
    part = f"{axis}s"
    if not isinstance(given, list) or not given:
        raise PortError(f"{part} is a list of one {axis} or more, such as {part}: [{_example(axis)}]")
    for k, each in enumerate(given):
        where = f"{part}[{k}]"
        if not isinstance(each, Mapping):
            yield Item(where, name_of(where, each))
            continue
        if axis not in each:
            raise PortError(f"{where} does not say which {axis}: add {axis}: {_example(axis)}")
        rest = {key: value for key, value in each.items() if key not in (axis, "name")}
        settings = _settings(where, rest, PortConfig)
        yield Item(where, name_of(f"{where}.{axis}", each[axis]), text_of(f"{where}.name", each.get("name")), settings)


def _example(axis: str) -> str:
    return {"source": "org/ft", "target": "org/new-base", "method": "bico"}[axis]


def _align(given: Any) -> Mapping[str, Any] | None:
    if given is None or given is False:
        return None
    return {} if given is True else _settings("align", given, AlignConfig, OF_ALIGN)


def _hardware(given: Any) -> Hardware:
    names = tuple(each.name for each in fields(Hardware))
    found = dict(_mapping("hardware", given, names))
    dependencies = found.pop("dependencies", None)
    if dependencies is not None and (
        not isinstance(dependencies, list) or not all(isinstance(each, str) for each in dependencies)
    ):
        raise PortError("hardware.dependencies is a list of requirements, such as [hf-bico]")
    said: dict[str, Any] = {name: text_of(f"hardware.{name}", value) for name, value in found.items()}
    return Hardware(**said | ({"dependencies": tuple(dependencies)} if dependencies else {}))


def _settings(where: str, given: Any, config: type, names: Collection[str] | None = None) -> dict[str, Any]:
    """Return settings of a config that a part of a plan says, each of its type."""
    options = {each.name: (each, found) for each, found in options_of(config)}
    known = names or tuple(name for name in options if name not in OWN)
    kinds, made = types_of(config), {}
    for name, value in _mapping(where, given, known, config).items():
        each, found = options[name]
        if value is None and each.default is not None:
            raise PortError(f"{where}.{name} has no value: give one, or leave it out")
        made[name] = None if value is None else value_of(f"{where}.{name}", found, kinds[name], value)
    return made


def _mapping(where: str, given: Any, known: Collection[str], config: type | None = None) -> Mapping[str, Any]:
    """Return a mapping whose keys are known.

    Raises:
        PortError: it is none, or a key is not known; what was meant is named if it can be guessed.
    """
    if not isinstance(given, Mapping):
        raise PortError(f"{where or 'a plan'} is a mapping of {', '.join(known)}, not {shown(given)}")
    for key in given:
        if key not in known:
            place = f"{where}.{key}" if where else str(key)
            raise PortError(f"{place} is not a setting{_instead(str(key), known, config)}")
    return given


def _instead(key: str, known: Collection[str], config: type | None) -> str:
    """Return what to do about an unknown key."""
    if config and key in OWN:
        return f" here: a plan says it at its top, as {OWN[key]}"
    near = meant(key, known, config)
    return f"; did you mean {near}?" if near else f": there are {', '.join(known)}"
