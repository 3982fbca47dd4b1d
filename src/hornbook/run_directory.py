"""A run on disk: one folder for each stage, and beside its work a `stage.json` that says what it came from.

A stage is done when its `stage.json` names the wanted fingerprint and every file it lists is there, unharmed.
`stage.json` is written last, and every file under a temporary name first, so a process killed at any moment
leaves either the old state or the new one, never half of either.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

from hornbook.errors import UserError
from hornbook.recipe import Recipe, recipe_to_toml

_TEMPORARY_MARK = ".tmp-"
_STARTED = "started.json"
_FINISHED = "stage.json"
_CHECKPOINTS = "checkpoints"


@contextmanager
def atomic_writer(path: Path | str, mode: Literal["wb", "w"] = "wb") -> Iterator[IO[Any]]:
    """A file that appears under its name only when the block ends well, complete and flushed to the disk.

    `mode` is "wb" for bytes or "w" for text in UTF-8. Where the block raises, what stood there before stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}{_TEMPORARY_MARK}{os.getpid()}")
    try:
        with open(temporary, "wb") if mode == "wb" else open(temporary, "w", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def check_writable(option: str, path: Path | None, *, as_folder: bool = False) -> None:
    """Raise UserError where nothing could be written to a path that a person gave, before anything is computed."""
    if path is None:
        return
    if as_folder and path.exists() and not path.is_dir():
        raise UserError(f"{option} {path}: is a file. Name a folder.")
    if not as_folder and path.is_dir():
        raise UserError(f"{option} {path}: is a folder. Name a file in it.")
    place = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not place.is_dir() and place != path:
        raise UserError(f"{option} {path}: {place} is a file, so there can be nothing in it. Name another place.")
    if not os.access(place, os.W_OK):
        raise UserError(f"{option} {path}: cannot be written. Name another place.")


def atomic_write(path: Path | str, data: bytes | str) -> None:
    """Write a whole file as `atomic_writer` does."""
    with atomic_writer(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def sync_folder(path: Path) -> None:
    """Make a rename last: on POSIX the name lives in the folder, which has to be flushed too."""
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sha256_file(path: Path | str) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove(path: Path) -> None:
    """Delete a file, or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path | str, value: Any) -> None:
    """Write a value as indented JSON, as `atomic_writer` does."""
    atomic_write(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Read what `write_json` wrote. Raises UserError where the file is not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as problem:
        raise UserError(f"{path}: is not valid JSON ({problem}). Remove it, and run the recipe again.") from None


class StageDirectory:
    """The folder of one stage within a run."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.name = self.path.name

    def record(self) -> dict[str, Any] | None:
        """What `finish` wrote: fingerprint, seconds, facts and files; None where the stage never finished.

        What is there instead, such as an empty table, counts as nothing.
        """
        found = _read_table(self.path / _FINISHED)
        is_whole = all(isinstance(found.get(name), dict) for name in ("facts", "files"))
        return found if is_whole and {"fingerprint", "seconds"} <= found.keys() else None

    def is_done(self, fingerprint: str) -> bool:
        """Whether the stage finished with this fingerprint, and each file it made is there, unharmed."""
        record = self.record()
        return (
            record is not None
            and record["fingerprint"] == fingerprint
            and all(self._is_intact(name, expected) for name, expected in record["files"].items())
        )

    def begin(self, fingerprint: str) -> None:
        """Make the folder ready for work with this fingerprint.

        Work of another fingerprint is cleared away. Work of the same one is kept, so that the stage can go on
        from its checkpoints, except for files found damaged.
        """
        doomed_name = f".{self.name}{_TEMPORARY_MARK}"
        for doomed in self.path.parent.glob(f"{doomed_name}*"):  # what a kill left of a deletion
            remove(doomed)
        started = self.path / _STARTED
        if _read_table(started).get("fingerprint") == fingerprint:
            for name, expected in (self.record() or {"files": {}})["files"].items():
                if not self._is_intact(name, expected):
                    remove(self.path / name)
            remove(self.path / _FINISHED)
            for leftover in self.path.rglob(f".*{_TEMPORARY_MARK}*"):
                leftover.unlink()
        elif self.path.exists():
            # Renamed first: half of a deletion, cut short by a kill, must not pass for a folder to resume.
            os.replace(self.path, doomed := self.path.with_name(f"{doomed_name}{os.getpid()}"))
            remove(doomed)
        write_json(started, {"fingerprint": fingerprint})

    def finish(
        self, fingerprint: str, seconds: float, facts: dict[str, Any], files: Iterable[Path] | None = None
    ) -> None:
        """Declare the stage done, with the size and checksum of each file it made.

        `files` are paths within the folder; None stands for all but the checkpoints and hidden files.
        """
        made = self._made_files() if files is None else sorted(files)
        listing = {
            path.relative_to(self.path).as_posix(): {
                "bytes": path.stat().st_size,
                "sha256": sha256_file(path),
            }
            for path in made
        }
        record = {"fingerprint": fingerprint, "seconds": round(seconds, 3), "facts": facts, "files": listing}
        write_json(self.path / _FINISHED, record)

    def _made_files(self) -> list[Path]:
        made = []
        for path in sorted(self.path.rglob("*")):
            parts = path.relative_to(self.path).parts
            is_hidden = any(part.startswith(".") for part in parts)
            is_ours = parts in ((_STARTED,), (_FINISHED,)) or parts[0] == _CHECKPOINTS
            if path.is_file() and not is_hidden and not is_ours:
                made.append(path)
        return made

    def _is_intact(self, name: str, expected: dict[str, Any]) -> bool:
        path = self.path / name
        return path.is_file() and expected == {"bytes": path.stat().st_size, "sha256": sha256_file(path)}


def _read_table(path: Path) -> dict[str, Any]:
    """The table in a JSON file; an empty one where there is no file, or no table in it."""
    found = read_json(path) if path.is_file() else {}
    return found if isinstance(found, dict) else {}


class RunDirectory:
    """The folder of one run: `recipe.toml`, `summary.json` and a folder for each stage."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def stage(self, name: str) -> StageDirectory:
        """The folder of the named stage, which need not exist yet."""
        return StageDirectory(self.path / name)

    @property
    def recipe_path(self) -> Path:
        """Where the recipe of the run stands, with every field spelled out."""
        return self.path / "recipe.toml"

    def write_recipe(self, recipe: Recipe) -> None:
        """Write the recipe with every field spelled out, so that the run can be repeated from its folder."""
        atomic_write(self.recipe_path, recipe_to_toml(recipe))

    def summary(self) -> dict[str, Any]:
        """The headline facts of every finished stage: {"stages": {name: facts}}."""
        found = _read_table(self.path / "summary.json")
        return found if isinstance(found.get("stages"), dict) else {"stages": {}}

    def update_summary(self, stage: str, facts: dict[str, Any]) -> None:
        """Set the headline facts of one stage, and leave those of the others."""
        summary = self.summary()
        summary["stages"][stage] = facts
        write_json(self.path / "summary.json", summary)

    def finished_stages(self) -> dict[str, dict[str, Any]]:
        """What `finish` wrote of every finished stage, by name."""
        folders = sorted(path for path in self.path.iterdir() if path.is_dir() and not path.name.startswith("."))
        return {path.name: record for path in folders if (record := self.stage(path.name).record()) is not None}

    def keep_finished(self, fingerprints: Mapping[str, str]) -> list[str]:
        """Let only stages with these fingerprints count as finished, and return the others; their files stay.

        So no model, score or export of an earlier form of the recipe is taken for one of this form.
        """
        summary, others = self.summary(), []
        for name, record in self.finished_stages().items():
            if record["fingerprint"] != fingerprints.get(name):
                (self.path / name / _FINISHED).unlink()
                summary["stages"].pop(name, None)
                write_json(self.path / "summary.json", summary)
                others.append(name)
        return others

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep every other process out of this run while the block lasts. The lock dies with its process.

        Raises UserError where another process holds it, and where the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = open(self.path / ".lock", "a+b")  # noqa: SIM115 (closed below)
        except OSError as problem:
            raise UserError(
                f"{self.path}: cannot be written ({problem.strerror}). Make it writable, or give this run another "
                "place with --runs DIR; what is there is as it was."
            ) from None
        with file:
            try:
                _lock_file(file)
            except OSError:
                raise UserError(
                    f"{self.path}: another process is working in this run directory. "
                    "Wait for it to end, or give this run another place with --runs DIR."
                ) from None
            yield


def open_run(path: Path) -> RunDirectory:
    """The run in a folder. Raises UserError where there is none."""
    run = RunDirectory(path)
    if not run.recipe_path.is_file():
        raise UserError(
            f"{path}: holds no run (there is no {run.recipe_path.name} in it). "
            "Give the folder that `hornbook run` made, such as runs/quickstart."
        )
    return run


def _lock_file(file: IO[bytes]) -> None:
    """Lock a file for this process alone, or raise OSError at once. Forked children do not inherit it."""
    if sys.platform == "win32":
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
