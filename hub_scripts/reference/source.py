"""What the package's source says of its public names: what makes a name, its docstring, a class's members."""

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import hf_bico

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Made:
    """A name, the class, function or assignment that makes it, and its docstring; `method`: it is one of a class."""

    name: str
    module: str
    node: ast.AST
    doc: str
    method: bool = False

    @property
    def is_class(self) -> bool:
        return isinstance(self.node, ast.ClassDef)

    @property
    def decorators(self) -> set[str]:
        return {ast.unparse(each) for each in getattr(self.node, "decorator_list", ())}


@cache
def parsed(module: str) -> ast.Module:
    return ast.parse(Path(find_spec(module).origin).read_text(encoding="utf-8"))


def documented(body: Sequence[ast.stmt]) -> Iterator[tuple[ast.stmt, str | None, str]]:
    """Statements with the name that they bind and its docstring, which stands below an assignment."""
    for node, below in zip(body, [*body[1:], None], strict=True):
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", node)
        doc = ast.get_docstring(node) if isinstance(node, Function | ast.ClassDef) else None
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(below, ast.Expr):
            doc = getattr(below.value, "value", None)
        yield node, getattr(target, "name", getattr(target, "id", None)), doc if isinstance(doc, str) else ""


def definition(module: str, name: str) -> Made | None:
    """What makes a name that a module knows, through the package's own imports; None if another package does."""
    for node, bound, doc in documented(parsed(module).body):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hf_bico"):
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    return definition(node.module, alias.name)
        elif bound == name:
            return Made(name, module, node, doc)
    return None


def ancestors(made: Made) -> list[Made]:
    """The package's classes that a class is made of, the nearest first."""
    bases = made.node.bases if made.is_class else ()
    parents = [parent for base in bases if (parent := definition(made.module, ast.unparse(base)))]
    return parents + [each for parent in parents for each in ancestors(parent)]


def members(made: Made) -> dict[str, Made]:
    """A class's public fields, properties and methods, and `__init__`: inherited ones too, and inherited docstrings."""
    found: dict[str, Made] = {}
    for parent in ancestors(made)[::-1]:
        found |= members(parent)
    for node, name, doc in documented(made.node.body):
        shown = name == "__init__" or (name and name[0] != "_")
        if shown and "ClassVar" not in ast.unparse(getattr(node, "annotation", ast.Constant(""))):
            doc = doc or (found[name].doc if name in found else "")
            found[name] = Made(name, made.module, node, doc, method=True)
    return found


def parts(made: Made) -> tuple[list[Made], list[Made]]:
    """A class's fields, and its methods and properties; none of anything else."""
    every = members(made).values() if made.is_class else ()
    return (
        [each for each in every if isinstance(each.node, ast.Assign | ast.AnnAssign)],
        [each for each in every if isinstance(each.node, Function) and each.name != "__init__"],
    )


def public() -> list[Made]:
    """What `hf_bico.__all__` names."""
    return [definition(hf_bico._PUBLIC[name], name) for name in hf_bico.__all__]


def spoken_of(shown: Sequence[Made]) -> list[Made]:
    """What else of the package these name: in their docstrings; in signatures and fields, and there in turn."""
    told = {
        other.name: other
        for made in shown
        for name in re.findall(r"(?<=`)\w+(?=`)", made.doc)
        if (other := definition(made.module, name)) and other not in shown
    }
    queue, found = list(shown), {}
    while queue:
        made = queue.pop()
        spots = [each.node for each in parts(made)[0]] if made.is_class else [made.node]
        notes = [
            note
            for spot in spots
            for node in ast.walk(spot)
            for note in (getattr(node, "annotation", None), getattr(node, "returns", None))
            if note
        ]
        notes += [made.node.value] if isinstance(made.node, ast.Assign) else []
        names = {node.id for note in notes for node in ast.walk(note) if isinstance(node, ast.Name)}
        for other in filter(None, (definition(made.module, name) for name in names)):
            if other.name not in found and other not in shown:
                found[other.name] = other
                queue.append(other)
    return sorted((told | found).values(), key=lambda made: made.name)
