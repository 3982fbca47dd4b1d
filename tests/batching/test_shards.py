"""Shards: what is written is what is read, and a file that is not whole says so."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hornbook.batching.shards import DocumentTokens, MemoryDocuments, Shard, ShardedDocuments, write_shards
from hornbook.errors import UserError

DOCUMENTS = [
    DocumentTokens([5, 6, 7, 0], n_bytes=11),
    DocumentTokens([], n_bytes=0),
    DocumentTokens([8, 0], n_bytes=2),
    DocumentTokens([9, 9, 9, 9, 0], n_bytes=40),
]
MASKED = [
    DocumentTokens([1, 2, 3], 5, loss_mask=[False, True, True]),
    DocumentTokens([4, 5], 1, loss_mask=[False, False]),
]


def write(folder: Path, documents: list[DocumentTokens] = DOCUMENTS, **options: int) -> list[Path]:
    return write_shards(folder, "train", documents, **{"vocab_size": 100, **options}, tokenizer_hash="abc")


def contents(documents: ShardedDocuments | MemoryDocuments) -> list[list[int]]:
    return [documents.tokens(document).tolist() for document in range(len(documents))]


def test_documents_come_back_as_they_went_in(tmp_path: Path) -> None:
    read = ShardedDocuments(write(tmp_path))
    assert contents(read) == [list(document.ids) for document in DOCUMENTS]
    assert read.lengths.tolist() == [4, 0, 2, 5]
    assert read.n_bytes.tolist() == [11, 0, 2, 40]
    assert read.loss_mask(0) is None
    assert (read.vocab_size, read.tokenizer_hash) == (100, "abc")


def test_loss_masks_come_back_as_they_went_in(tmp_path: Path) -> None:
    read = ShardedDocuments(write(tmp_path, MASKED))
    masks = [read.loss_mask(document) for document in range(len(read))]
    assert [mask.tolist() for mask in masks if mask is not None] == [[False, True, True], [False, False]]
    assert contents(read) == [[1, 2, 3], [4, 5]]


def test_memory_and_shards_hold_the_same(tmp_path: Path) -> None:
    on_disk, in_memory = ShardedDocuments(write(tmp_path, MASKED)), MemoryDocuments(MASKED)
    assert contents(on_disk) == contents(in_memory)
    assert on_disk.lengths.tolist() == in_memory.lengths.tolist()
    assert on_disk.n_bytes.tolist() == in_memory.n_bytes.tolist()
    assert [on_disk.loss_mask(n).tolist() for n in (0, 1)] == [in_memory.loss_mask(n).tolist() for n in (0, 1)]  # type: ignore[union-attr]


def test_many_documents_are_spread_over_shards_in_order(tmp_path: Path) -> None:
    paths = write(tmp_path, tokens_per_shard=6)
    assert [path.name for path in paths] == ["train-00000.bin", "train-00001.bin"]
    assert [len(Shard(path)) for path in paths] == [3, 1]
    assert contents(ShardedDocuments(paths)) == [list(document.ids) for document in DOCUMENTS]


def test_no_documents_make_no_shard(tmp_path: Path) -> None:
    assert write(tmp_path, []) == []
    with pytest.raises(UserError, match="no token shards"):
        ShardedDocuments([])


@pytest.mark.parametrize(("vocab_size", "bytes_per_token"), [(2**16, 2), (2**16 + 1, 4)])
def test_a_token_takes_two_bytes_where_the_vocabulary_allows(
    tmp_path: Path, vocab_size: int, bytes_per_token: int
) -> None:
    document = DocumentTokens([vocab_size - 1, 0], n_bytes=1)
    read = ShardedDocuments(write(tmp_path, [document], vocab_size=vocab_size))
    assert read.tokens(0).itemsize == bytes_per_token
    assert read.tokens(0).tolist() == [vocab_size - 1, 0]


@pytest.mark.parametrize("id", [-1, 100])
def test_an_id_outside_the_vocabulary_is_refused(tmp_path: Path, id: int) -> None:
    with pytest.raises(ValueError, match="in a vocabulary of 100"):
        write(tmp_path, [DocumentTokens([1, id], n_bytes=1)])


def test_a_mask_for_some_documents_only_is_refused(tmp_path: Path) -> None:
    for documents in ([DOCUMENTS[0], MASKED[0]], [MASKED[0], DOCUMENTS[0]]):
        with pytest.raises(ValueError, match="either every document"):
            write(tmp_path, documents)


def test_writing_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[DocumentTokens]:
        yield DOCUMENTS[0]
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_shards(tmp_path, "train", broken(), vocab_size=100, tokenizer_hash="abc")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.bin: cannot be read"):
        Shard(tmp_path / "nowhere.bin")


@pytest.mark.parametrize("kept_bytes", [0, 10, 500, 1023, 1024, 1030, -1])
def test_a_shard_cut_short_is_named_and_what_to_do(tmp_path: Path, kept_bytes: int) -> None:
    (path,) = write(tmp_path)
    path.write_bytes(path.read_bytes()[:kept_bytes])
    with pytest.raises(UserError, match=r"train-00000\.bin: .*Remove the file"):
        Shard(path)


def test_a_shard_with_any_byte_of_its_payload_changed_is_refused(tmp_path: Path) -> None:
    (path,) = write(tmp_path, MASKED)
    whole = path.read_bytes()
    assert len(whole) > 1024
    for at in range(1024, len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(UserError, match="does not match its checksum"):
            Shard(path)
    path.write_bytes(whole)
    assert len(Shard(path)) == 2


def test_a_shard_with_a_changed_header_is_refused(tmp_path: Path) -> None:
    (path,) = write(tmp_path)
    whole = path.read_bytes()
    end = whole.index(b"}") + 1
    for at in range(end):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(UserError, match=r"not a token shard|version|damaged header"):
            Shard(path)


def test_a_file_of_something_else_is_no_shard(tmp_path: Path) -> None:
    path = tmp_path / "notes.bin"
    path.write_bytes(b"not tokens " * 1000)
    with pytest.raises(UserError, match="is not a token shard"):
        Shard(path)


def test_shards_of_two_tokenizers_do_not_mix(tmp_path: Path) -> None:
    first = write_shards(tmp_path, "a", DOCUMENTS, vocab_size=100, tokenizer_hash="abc")
    second = write_shards(tmp_path, "b", DOCUMENTS, vocab_size=100, tokenizer_hash="def")
    with pytest.raises(UserError, match="another tokenizer"):
        ShardedDocuments(first + second)


def test_the_fingerprint_is_that_of_the_content(tmp_path: Path) -> None:
    first = ShardedDocuments(write(tmp_path / "a"))
    again = ShardedDocuments(write(tmp_path / "b"))
    other = ShardedDocuments(write(tmp_path / "c", [*DOCUMENTS[:-1], DocumentTokens([9, 9, 9, 8, 0], 40)]))
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_the_fingerprint_in_memory_sees_tokens_boundaries_and_masks() -> None:
    collections = [
        [DocumentTokens([1, 2, 3], 1)],
        [DocumentTokens([1, 2, 4], 1)],
        [DocumentTokens([1, 2], 1), DocumentTokens([3], 1)],
        [DocumentTokens([1, 2, 3], 1, loss_mask=[True, True, True])],
        [DocumentTokens([1, 2, 3], 1, loss_mask=[True, True, False])],
    ]
    assert len({MemoryDocuments(documents).fingerprint for documents in collections}) == len(collections)
    assert MemoryDocuments(MASKED).fingerprint == MemoryDocuments(MASKED).fingerprint


def test_a_document_is_mapped_not_read(tmp_path: Path) -> None:
    tokens = ShardedDocuments(write(tmp_path)).tokens(0)
    assert not tokens.flags.writeable
    assert not tokens.flags.owndata
    assert np.issubdtype(tokens.dtype, np.unsignedinteger)
