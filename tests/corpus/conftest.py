"""What the corpus tests share: a few sound sentences, and functions that run one expression over texts."""

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from hornbook.corpus.engine import load_daft, processors
from hornbook.storyworld.world import Document

PLACES = ("garden", "harbour", "mill", "forest", "kitchen", "school", "market", "tower", "meadow", "bridge")
THINGS = ("kite", "lamp", "basket", "drum", "spoon", "letter", "apple", "boat", "ring", "scarf")


def _sound_text(number: int) -> str:
    place, thing = PLACES[number % 10], THINGS[number // 10 % 10]
    return (
        f"On day {number} Mara went to the {place} with her brother. They found a {thing} and a box.\n\n"
        f'"Look," said Mara, "this is the {thing} of the old sailor." They took it home.'
    )


@pytest.fixture
def sound_text() -> Callable[[int], str]:
    """Gives a short text that breaks no rule, different for each number."""
    return _sound_text


@pytest.fixture
def over() -> Callable[..., list[Any]]:
    """Evaluates a function from string expression to expression over some texts."""

    def evaluate(expression: Callable[[Any], Any], texts: Iterable[str]) -> list[Any]:
        daft = load_daft()
        frame = daft.from_pydict({"text": list(texts)})
        return frame.select(expression(daft.col("text")).alias("result")).to_pydict()["result"]

    return evaluate


@pytest.fixture
def write_jsonl(tmp_path: Path) -> Callable[[str, Iterable[str]], Path]:
    """Writes texts as a jsonl file, and returns its path."""

    def write(name: str, texts: Iterable[str]) -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
        return path

    return write


@pytest.fixture
def documents() -> list[Document]:
    """Stand-ins for the world's stories."""
    return [Document(f"story-{n}", "story", _sound_text(n), 100.0 + n) for n in range(400)]


class Store:
    """A web server that hands out files and parts of them, and lists them as S3 does. On this machine alone."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, str]] = []
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                wanted = self.headers.get("range", "")
                store.requests.append((self.command, url.path, wanted))
                query = parse_qs(url.query)
                name = unquote(url.path).strip("/")
                if "list-type" in query:
                    self._answer(200, store.listing(name, query.get("prefix", [""])[0], query.get("delimiter")))
                elif name not in store.files:
                    self._answer(404, b"")
                else:
                    data = store.files[name]
                    first, last = 0, len(data) - 1
                    if wanted:
                        from_, _, to = wanted.removeprefix("bytes=").partition("-")
                        first = int(from_) if from_ else len(data) - int(to)
                        last = min(int(to), last) if from_ and to else last
                    place = {"content-range": f"bytes {first}-{last}/{len(data)}"} if wanted else {}
                    self._answer(206 if wanted else 200, data[first : last + 1], place)

            def _answer(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                common = {"content-length": str(len(data)), "accept-ranges": "bytes", "etag": '"1"'}
                for name, value in (common | (headers or {})).items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(data)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def put(self, name: str, data: bytes) -> str:
        """Store a file, and return its URL."""
        self.files[name] = data
        return f"{self.url}/{name}"

    def as_s3(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make s3:// URLs lead here: the first folder is the bucket."""
        monkeypatch.setenv("AWS_ENDPOINT_URL", self.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
        monkeypatch.setenv("AWS_REGION", "us-east-1")

    def listing(self, bucket: str, prefix: str, delimiter: list[str] | None) -> bytes:
        keys = sorted(name.removeprefix(f"{bucket}/") for name in self.files if name.startswith(f"{bucket}/{prefix}"))
        folders = sorted({prefix + key[len(prefix) :].split("/")[0] + "/" for key in keys if "/" in key[len(prefix) :]})
        if delimiter:
            keys = [key for key in keys if "/" not in key[len(prefix) :]]
        contents = "".join(
            f"<Contents><Key>{key}</Key><Size>{len(self.files[f'{bucket}/{key}'])}</Size></Contents>" for key in keys
        )
        common = "".join(f"<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>" for folder in folders)
        body = f"<Name>{bucket}</Name><IsTruncated>false</IsTruncated>{contents}{common if delimiter else ''}"
        return f'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult>{body}</ListBucketResult>'.encode()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="session")
def _running_store() -> Iterator[Store]:
    # One for all tests, because Daft keeps its connection to S3 for as long as the process lives.
    running = Store()
    yield running
    running.stop()


@pytest.fixture
def store(_running_store: Store) -> Store:
    """An empty web server."""
    if processors() == 1:
        pytest.skip("one processor: Daft reads nothing from behind a URL then")
    _running_store.files.clear()
    _running_store.requests.clear()
    return _running_store
