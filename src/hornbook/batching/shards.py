"""Tokens on disk: documents in memory-mapped files that know what they are and whether they are whole.

A shard is one file: a header, then the payload. The header says how to read it (token type, counts), what the
ids mean (vocabulary size, hash of the tokenizer) and what the payload's SHA-256 is. The payload is, in this
order,

    tokens       n_tokens of uint16 or uint32, document after document, each with its closing <|endoftext|>
    loss mask    n_tokens of one byte, only where some tokens are not to be learned (fine-tuning)
    offsets      n_documents + 1 of int64: document i is tokens[offsets[i]:offsets[i + 1]]
    bytes        n_documents of int64: the bytes of raw text that the document's labels stand for

All numbers are little-endian. A reader maps the file and never loads it, so a corpus may be larger than
memory.

Bits per byte need the last of these: the loss is a sum over labels, so it is divided by the bytes of those
labels. The first token of a document is nobody's label and does not count; a token outside the loss mask does
not either.
"""

import hashlib
import json
import struct
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import numpy as np

from hornbook.errors import UserError
from hornbook.run_directory import atomic_writer

_MAGIC = b"HORNBOOK"
_VERSION = 1
_PREAMBLE = struct.Struct("<8sIII")  # magic, version, then length and CRC-32 of the JSON that follows
_HEADER_BYTES = 1024  # preamble and JSON, filled up with zeros: its place is kept until the counts are known
_TOKENS_PER_SHARD = 2**27
_CHUNK_BYTES = 2**20

Tokens = Sequence[int] | np.ndarray


class Documents(Protocol):
    """Token ids by document, wherever they are kept."""

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each document: (n_documents,) int64."""

    @property
    def n_bytes(self) -> np.ndarray:
        """Bytes of raw text that the labels of each document stand for: (n_documents,) int64."""

    @property
    def fingerprint(self) -> str:
        """A hash of all tokens and masks: two collections with the same fingerprint hold the same."""

    def __len__(self) -> int:
        """The number of documents."""

    def tokens(self, document: int) -> np.ndarray:
        """The ids of one document, (length,), of any unsigned type. Not a copy: leave it as it is."""

    def loss_mask(self, document: int) -> np.ndarray | None:
        """Which tokens of one document are to be learned, (length,) bool; None stands for all of them."""


class DocumentTokens(NamedTuple):
    """One document on its way into a shard."""

    ids: Tokens
    n_bytes: int
    loss_mask: Sequence[bool] | np.ndarray | None = None


class ShardWriter:
    """Writes one shard into an open, seekable file: `add` each document, then `finish`.

    Either every document has a loss mask or none has. Tokens go straight to the disk; masks wait in memory.
    """

    def __init__(self, file: IO[bytes], vocab_size: int, tokenizer_hash: str) -> None:
        self.vocab_size = vocab_size
        self.tokenizer_hash = tokenizer_hash
        self.n_tokens = 0
        self._file = file
        self._dtype = np.dtype("<u2" if vocab_size <= 2**16 else "<u4")
        self._lengths: list[int] = []
        self._n_bytes: list[int] = []
        self._masks: list[np.ndarray] = []
        self._sha256 = hashlib.sha256()
        file.write(bytes(_HEADER_BYTES))

    def add(self, document: DocumentTokens) -> None:
        """Append one document. Raises ValueError for ids or a loss mask that cannot be right."""
        ids = np.asarray(document.ids, dtype=np.int64)
        if ids.size and not 0 <= ids.min() <= ids.max() < self.vocab_size:
            raise ValueError(f"token ids from {ids.min()} to {ids.max()} in a vocabulary of {self.vocab_size}")
        if self._lengths and bool(self._masks) != (document.loss_mask is not None):
            raise ValueError("either every document of a shard has a loss mask or none has")
        if document.loss_mask is not None:
            mask = np.asarray(document.loss_mask, dtype=np.uint8)
            if mask.shape != ids.shape:
                raise ValueError(f"a loss mask of {mask.size} for a document of {ids.size} tokens")
            self._masks.append(mask)
        self._lengths.append(ids.size)
        self._n_bytes.append(document.n_bytes)
        self.n_tokens += ids.size
        self._append(ids.astype(self._dtype))

    def finish(self) -> None:
        """Write what stands after the tokens, and then the header."""
        for mask in self._masks:
            self._append(mask)
        self._append(np.cumsum([0, *self._lengths], dtype="<i8"))
        self._append(np.array(self._n_bytes, dtype="<i8"))
        header = {
            "dtype": self._dtype.name,
            "n_tokens": self.n_tokens,
            "n_documents": len(self._lengths),
            "has_loss_mask": bool(self._masks),
            "vocab_size": self.vocab_size,
            "tokenizer_hash": self.tokenizer_hash,
            "sha256": self._sha256.hexdigest(),
        }
        text = json.dumps(header).encode()
        self._file.seek(0)
        self._file.write(_PREAMBLE.pack(_MAGIC, _VERSION, len(text), zlib.crc32(text)) + text)

    def _append(self, values: np.ndarray) -> None:
        data = values.tobytes()
        self._sha256.update(data)
        self._file.write(data)


def write_shards(
    folder: Path | str,
    split: str,
    documents: Iterable[DocumentTokens],
    vocab_size: int,
    tokenizer_hash: str,
    tokens_per_shard: int = _TOKENS_PER_SHARD,
) -> list[Path]:
    """Write documents as SPLIT-00000.bin, SPLIT-00001.bin, ... and return the paths; no documents, no files.

    A shard is closed with the document that brings it to `tokens_per_shard`, so it may be longer by that
    document.
    """
    paths: list[Path] = []
    remaining = iter(documents)
    document = next(remaining, None)
    while document is not None:
        paths.append(Path(folder) / f"{split}-{len(paths):05}.bin")
        with atomic_writer(paths[-1]) as file:
            writer = ShardWriter(file, vocab_size, tokenizer_hash)
            while document is not None and writer.n_tokens < tokens_per_shard:
                writer.add(document)
                document = next(remaining, None)
            writer.finish()
    return paths


class Shard:
    """One shard, memory-mapped. Opening it reads it once to compare the checksum.

    Raises UserError where the file is missing, not a shard, of another version, cut short or damaged.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        header = self._read_header()
        self.vocab_size: int = header["vocab_size"]
        self.tokenizer_hash: str = header["tokenizer_hash"]
        self.sha256: str = header["sha256"]
        token_type = np.dtype(header["dtype"]).newbyteorder("<")
        n_tokens, n_documents = header["n_tokens"], header["n_documents"]
        n_mask = n_tokens if header["has_loss_mask"] else 0
        expected = _HEADER_BYTES + n_tokens * token_type.itemsize + n_mask + (2 * n_documents + 1) * 8
        found = self.path.stat().st_size
        if found != expected:
            raise self._broken(f"has {found:,} bytes where its header promises {expected:,}")
        self._check_payload()
        self._mapped_bytes = _HEADER_BYTES
        self._tokens = self._map(token_type, n_tokens)
        self._mask = self._map(np.dtype(bool), n_mask)
        self._offsets = self._map(np.dtype("<i8"), n_documents + 1)
        self.n_bytes = self._map(np.dtype("<i8"), n_documents)

    def __len__(self) -> int:
        return len(self.n_bytes)

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self._offsets)

    def tokens(self, document: int) -> np.ndarray:
        return self._tokens[self._offsets[document] : self._offsets[document + 1]]

    def loss_mask(self, document: int) -> np.ndarray | None:
        return self._mask[self._offsets[document] : self._offsets[document + 1]] if len(self._mask) else None

    def _broken(self, problem: str) -> UserError:
        return UserError(f"{self.path}: {problem}. Remove the file, and run the recipe again to write it anew.")

    def _read_header(self) -> dict[str, Any]:
        try:
            with open(self.path, "rb") as file:
                head = file.read(_HEADER_BYTES)
        except OSError as problem:
            raise self._broken(f"cannot be read ({problem.strerror})") from None
        if len(head) < _HEADER_BYTES or not head.startswith(_MAGIC):
            raise self._broken("is not a token shard")
        _, version, length, checksum = _PREAMBLE.unpack_from(head)
        if version != _VERSION:
            raise self._broken(f"is a shard of version {version}, and this program reads version {_VERSION}")
        text = head[_PREAMBLE.size : _PREAMBLE.size + length]
        if zlib.crc32(text) != checksum:
            raise self._broken("has a damaged header")
        return json.loads(text)

    def _check_payload(self) -> None:
        digest = hashlib.sha256()
        with open(self.path, "rb") as file:
            file.seek(_HEADER_BYTES)
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
        if digest.hexdigest() != self.sha256:
            raise self._broken("is damaged: its content does not match its checksum")

    def _map(self, dtype: np.dtype, count: int) -> np.ndarray:
        """Map the next `count` values of the payload."""
        start = self._mapped_bytes
        self._mapped_bytes += count * dtype.itemsize
        if not count:  # an empty range cannot be mapped
            return np.empty(0, dtype)
        return np.asarray(np.memmap(self.path, dtype, "r", start, (count,)))  # a plain array slices faster


class ShardedDocuments:
    """The documents of several shards, one after another. See `Documents`.

    Raises UserError where there are no shards, one is broken, or they were made with different tokenizers.
    """

    def __init__(self, paths: Sequence[Path | str]) -> None:
        if not paths:
            raise UserError("There are no token shards to read. Run the recipe from its tokens stage.")
        self._shards = [Shard(path) for path in paths]
        first = self._shards[0]
        self.vocab_size = first.vocab_size
        self.tokenizer_hash = first.tokenizer_hash
        for shard in self._shards:
            if shard.tokenizer_hash != first.tokenizer_hash:
                raise UserError(
                    f"{shard.path}: was written with another tokenizer than {first.path}. "
                    "Remove both, and run the recipe again to write them anew."
                )
        self.lengths = np.concatenate([shard.lengths for shard in self._shards])
        self.n_bytes = np.concatenate([shard.n_bytes for shard in self._shards])
        self.fingerprint = hashlib.sha256("".join(shard.sha256 for shard in self._shards).encode()).hexdigest()
        self._first_documents = np.cumsum([0, *map(len, self._shards)])

    def __len__(self) -> int:
        return len(self.lengths)

    def tokens(self, document: int) -> np.ndarray:
        shard, within = self._locate(document)
        return shard.tokens(within)

    def loss_mask(self, document: int) -> np.ndarray | None:
        shard, within = self._locate(document)
        return shard.loss_mask(within)

    def _locate(self, document: int) -> tuple[Shard, int]:
        index = int(np.searchsorted(self._first_documents, document, side="right")) - 1
        return self._shards[index], int(document - self._first_documents[index])


class MemoryDocuments:
    """Documents held in memory, for data too small to be worth a file. See `Documents`."""

    def __init__(self, documents: Iterable[DocumentTokens]) -> None:
        kept = list(documents)
        self._ids = [np.asarray(document.ids, dtype=np.uint32) for document in kept]
        self._masks = [
            None if document.loss_mask is None else np.asarray(document.loss_mask, dtype=bool) for document in kept
        ]
        self.lengths = np.array([len(ids) for ids in self._ids], dtype=np.int64)
        self.n_bytes = np.array([document.n_bytes for document in kept], dtype=np.int64)
        digest = hashlib.sha256(self.lengths.tobytes())
        for ids, mask in zip(self._ids, self._masks, strict=True):
            digest.update(ids.tobytes() + (b"-" if mask is None else mask.tobytes()))
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._ids)

    def tokens(self, document: int) -> np.ndarray:
        return self._ids[document]

    def loss_mask(self, document: int) -> np.ndarray | None:
        return self._masks[document]
