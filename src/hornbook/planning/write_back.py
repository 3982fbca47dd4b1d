"""Puts a plan's advice into the recipe's file: lines are changed or added, all others stay, comments too."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hornbook.errors import UserError
from hornbook.recipe import load_recipe
from hornbook.run_directory import atomic_write
from hornbook.toml_text import toml_value


def write_fields(path: Path, fields: Mapping[str, Any]) -> None:
    """Set fields of a recipe's file, {"pretrain.micro_batch_size": 8}, and leave the rest as it stands.

    Raises UserError where the file would no longer be a recipe that says what it is asked to; it is then unchanged.
    """
    written = path.read_bytes().decode()
    line_end = "\r\n" if "\r\n" in written else "\n"
    text = written.replace("\r\n", "\n")
    for name, value in fields.items():
        section, _, field = name.rpartition(".")
        text = _with_field(text, section, field, toml_value(value))
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        table = {}  # such as a section that stands there in dotted keys, and cannot be opened a second time
    for name, value in fields.items():
        found: Any = table
        for part in name.split("."):
            found = found.get(part, {}) if isinstance(found, dict) else {}
        if found != value:
            raise UserError(f"{path}: could not write {name} = {value} into it; set it by hand. Nothing was changed.")
    text = text.replace("\n", line_end)
    temporary = path.with_name(f".{path.stem}.checked.toml")
    try:
        atomic_write(temporary, text)
        load_recipe(temporary)
    finally:
        temporary.unlink(missing_ok=True)
    atomic_write(path, text)


def _with_field(text: str, section: str, field: str, value: str) -> str:
    lines = text.removesuffix("\n").split("\n")
    header = re.compile(rf"^\s*\[\s*{re.escape(section)}\s*\]\s*(#.*)?$")
    start = next((number for number, line in enumerate(lines) if header.match(line)), None)
    if start is None:
        return f"{text.rstrip()}\n\n[{section}]\n{field} = {value}\n"
    end = next(
        (number for number in range(start + 1, len(lines)) if lines[number].lstrip().startswith("[")), len(lines)
    )
    assigned = re.compile(rf"^(\s*{re.escape(field)}\s*=\s*)([^#]*?)(\s*)(#.*)?$")
    for number in range(start + 1, end):
        if found := assigned.match(lines[number]):
            before, _, space, comment = found.groups()
            lines[number] = f"{before}{value}{space if comment else ''}{comment or ''}"
            return "\n".join(lines) + "\n"
    while not lines[end - 1].strip():  # before the empty lines that part it from the next section
        end -= 1
    lines.insert(end, f"{field} = {value}")
    return "\n".join(lines) + "\n"
