"""Listings: a piece of the source, taken by its name at the moment the book is built.

A name is `model.attention.attend`, or `model.transformer.Layer.forward`: the file under `hornbook`, then what is
defined in it. Nothing is imported. So a listing is always the code as it is, and a name that is gone is noticed.
"""

import ast
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hornbook.errors import UserError

SOURCE = Path(__file__).parent.parent

_ASKED_FOR = re.compile(r'#(?:listing|src)\("([\w.]+)"')


@dataclass(frozen=True)
class Listing:
    """A definition: its file as seen from the source folder, its name there, its first line's number, and its text."""

    file: str
    name: str
    first_line: int
    code: str


def take(name: str, source: Path = SOURCE) -> Listing:
    """The listing of a function, method, class or constant. Raises UserError where there is no such name."""
    parts = name.split(".")
    for n_folders in range(len(parts) - 1, 0, -1):
        path = source.joinpath(*parts[:n_folders]).with_suffix(".py")
        if path.is_file():
            return _definition(path, parts[n_folders:], f"{source.name}/{path.relative_to(source).as_posix()}")
    raise UserError(f"{name}: no file under {source.name} holds it")


def take_all(chapters: Sequence[Path], source: Path = SOURCE) -> dict[str, Listing]:
    """The listings that these chapters ask for, by name.

    Raises UserError with chapter and line of every name that is gone.
    """
    taken: dict[str, Listing] = {}
    problems = []
    for chapter in chapters:
        for line_number, name in _names_in(chapter):
            try:
                taken[name] = take(name, source)
            except UserError as problem:
                problems.append(f"{chapter.name}, line {line_number}: {problem}. Name there what stands in its place.")
    if problems:
        raise UserError("\n".join(problems))
    return taken


def _names_in(chapter: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(chapter.read_text(encoding="utf-8").splitlines(), start=1):
        for found in _ASKED_FOR.finditer(line):
            yield number, found[1]


def _definition(path: Path, names: Sequence[str], file: str) -> Listing:
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    body: Sequence[ast.stmt] = ast.parse(text).body
    node: ast.stmt | None = None
    for name in names:
        node = next((one for one in body if name in _names_of(one)), None)
        if node is None:
            raise UserError(f"{'.'.join(names)}: {file} does not define it")
        body = node.body if isinstance(node, ast.ClassDef) else []
    assert node is not None
    assert node.end_lineno is not None
    decorators = node.decorator_list if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
    first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
    while first > 1 and lines[first - 2].lstrip().startswith("#"):
        first -= 1
    code = textwrap.dedent("\n".join(lines[first - 1 : node.end_lineno]))
    return Listing(file, ".".join(names), first, code)


def _names_of(node: ast.stmt) -> list[str]:
    """What a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]
