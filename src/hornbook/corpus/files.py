"""The user's files, on this machine or behind a URL: finding them, and opening them as streams of bytes."""

import glob
import gzip
import io
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import pyarrow

from hornbook.corpus.engine import load_daft, processors
from hornbook.errors import RunFailed, UserError

KINDS = (".txt", ".jsonl", ".json", ".parquet", ".html", ".htm", ".warc", ".wet")
TABLE_KINDS = (".tsv", ".csv")
COMPRESSIONS = (".gz", ".zst")
URL_SCHEMES = ("s3://", "gs://", "az://", "hf://", "https://", "http://")
# As much as is fetched at once from behind a URL, and so the memory that a remote file takes.
REMOTE_BLOCK_BYTES = 8 * 2**20

# A path on this machine, or a URL as text.
Location = Path | str
ByteStream = io.BufferedReader | gzip.GzipFile


def expanded(path: Path | str) -> Path:
    """The path with the folders that ~ and ~name mean. Raises UserError where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"{path}: there is no user of this name here. Write the folder out.") from None


def find_files(pattern: str, kinds: Sequence[str] = KINDS) -> list[Path]:
    """The files of these kinds that a path, a folder or a glob stands for, sorted, each once whatever links lead to it.

    Raises UserError where there is none.
    """
    if not pattern:
        raise UserError("files: names no file. Write files:PATH_OR_GLOB; files:. is the current folder.")
    path = expanded(pattern)
    if path.is_dir():
        found = [p for p in path.rglob("*") if not any(part.startswith(".") for part in p.relative_to(path).parts)]
    elif path.is_file():
        found = [path]
    else:
        found = [Path(name) for name in glob.glob(str(path), recursive=True)]
    readable = sorted(p for p in found if p.is_file() and kind_of(p) in kinds)
    if not readable:
        raise UserError(
            f"files:{pattern}: {'no file there can be read' if found else 'there is no such file'}. "
            f"Hornbook reads {_kinds(kinds)}, plain or with .gz or .zst; relative paths start at the current folder."
        )
    # A link to a folder above would else give every file dozens of times.
    first_of = {path.resolve(): path for path in reversed(readable)}
    return sorted(first_of.values())


def find_urls(url: str) -> list[str]:
    """The readable files that a URL stands for, sorted: one, or all that match its glob or lie below it.

    Object stores and hubs can list what they hold; a web server cannot, so an http(s) URL is one file.
    Raises UserError where there is none, or the place cannot be reached, or on one processor alone: Daft then opens a
    file on the one thread that waits for it, for ever (version 0.7).
    """
    if processors() == 1:
        raise UserError(
            f"corpus.source: {url}: files behind a URL are read on two processors or more, and this process has one. "
            "Give it another, or fetch the files and point corpus.source at them: files:PATH."
        )
    if url.startswith(("https://", "http://")):
        found = [url]
    else:
        daft = load_daft()
        pattern = url if any(mark in url for mark in "*?[") or kind_of(url) in KINDS else f"{url.rstrip('/')}/**"
        try:
            found = daft.from_glob_path(pattern).to_pydict()["path"]
        except FileNotFoundError:
            found = []
        except Exception as problem:  # what Daft raises depends on where the connection failed
            raise _cannot_be_read(url, problem) from None
    readable = sorted(name for name in found if kind_of(name) in KINDS)
    if not readable:
        raise UserError(
            f"corpus.source: {url}: {'no file there can be read' if found else 'there is no such file'}. "
            f"Hornbook reads {_kinds(KINDS)}, plain or with .gz or .zst."
        )
    try:
        with _RemoteFile(readable[0]):
            return readable
    except (OSError, RunFailed) as problem:
        raise _cannot_be_read(readable[0], problem) from None


def places_of(locations: Sequence[Location]) -> list[str]:
    """The name of each file within the folder that all of them share."""
    # What follows the question mark of a URL may be a key to the file.
    parts = [
        location.parts if isinstance(location, Path) else tuple(location.partition("?")[0].split("/"))
        for location in locations
    ]
    folders = zip(*(of_one[:-1] for of_one in parts), strict=False)
    n_shared = sum(1 for _ in takewhile(lambda names: len(set(names)) == 1, folders))
    # A name on a disk may be no UTF-8 at all, and then it could not be written down.
    return ["/".join(of_one[n_shared:]).encode("utf-8", "replace").decode() for of_one in parts]


def kind_of(location: Location) -> str:
    """The suffix that says what is in the file, without that of its compression."""
    suffixes = _suffixes(location)
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


@contextmanager
def open_file(location: Location) -> Iterator[ByteStream]:
    """The bytes of a file as a stream, decompressed where its name says that it is compressed.

    Raises OSError, EOFError or zlib.error where the file is damaged, and RunFailed where a connection breaks:
    a run must not go on with a part of its documents because a network failed.
    """
    with ExitStack() as opened:
        stream: ByteStream
        if isinstance(location, Path):
            stream = opened.enter_context(open(location, "rb"))
        else:
            remote: Any = opened.enter_context(_RemoteFile(location))
            stream = opened.enter_context(io.BufferedReader(remote, REMOTE_BLOCK_BYTES))
        compression = _suffixes(location)[-1:]
        if compression == [".gz"]:
            stream = opened.enter_context(gzip.GzipFile(fileobj=stream))
        elif compression == [".zst"]:
            compressed = opened.enter_context(pyarrow.PythonFile(stream, mode="r"))
            inner = opened.enter_context(pyarrow.CompressedInputStream(compressed, "zstd"))
            stream = opened.enter_context(io.BufferedReader(inner))
        yield stream


class _RemoteFile(io.RawIOBase):
    """A file behind a URL, read through Daft, which knows object stores, hubs and their credentials.

    Where the server can give parts of a file, only the part that is needed is ever in memory.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._opened = load_daft().File(url).open(REMOTE_BLOCK_BYTES)
        try:
            self._file = self._opened.__enter__()
        except FileNotFoundError:
            raise
        except Exception as problem:
            raise self._broken(problem) from None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        try:
            data = self._file.read(len(buffer))
        except Exception as problem:
            raise self._broken(problem) from None
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        if not self.closed:
            self._opened.__exit__(None, None, None)
        super().close()

    def _broken(self, problem: Exception) -> RunFailed:
        return RunFailed(
            f"{self._url}: the connection broke while it was read ({_first_line(problem)}). "
            "Run the recipe again when it can be reached."
        )


def _suffixes(location: Location) -> list[str]:
    name = location.name if isinstance(location, Path) else PurePosixPath(urlsplit(location).path).name
    return [suffix.lower() for suffix in PurePosixPath(name).suffixes]


def _kinds(kinds: Sequence[str]) -> str:
    return ", ".join(kind.removeprefix(".") for kind in kinds)


def _cannot_be_read(url: str, problem: Exception) -> UserError:
    return UserError(
        f"corpus.source: {url} cannot be read ({_first_line(problem)}). Check its name, your credentials "
        "and the network, or point corpus.source at files on this machine: files:PATH."
    )


def _first_line(problem: Exception) -> str:
    return (str(problem) or type(problem).__name__).splitlines()[0]
