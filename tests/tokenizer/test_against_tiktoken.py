"""With GPT-2's vocabulary: tiktoken's ids, from the textbook and from the engine, on real and on random text."""

import gzip
import random
import sys
import tarfile
import unicodedata
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiktoken
from tiktoken.load import data_gym_to_mergeable_bpe_ranks

from hornbook.tokenizer import bpe
from hornbook.tokenizer.published import read_published
from hornbook.tokenizer.tokenizer import Tokenizer
from hornbook.tokenizer.tokenizer_json import read_vocabulary

# All engines know the characters that this Python knows; newer ones they may classify differently.
KNOWN_CHARACTERS = [
    chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) not in ("Cn", "Cs")
]
N_RANDOM_TEXTS = 10_000
# The textbook is slow Python: it reads this much of each file, and the engine all of it.
TEXTBOOK_CHARACTERS = 200_000
# What tiktoken itself has for GPT-2.
TIKTOKENS_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"

Coders = tuple[tiktoken.Encoding, Tokenizer, bpe.BytePairEncoding]


@pytest.fixture
def coders(real_data: Path) -> Coders:
    """GPT-2's tokenizer as tiktoken builds it from its files, as our engine and as our textbook."""
    folder = real_data / "tokenizer/gpt2"
    ranks = data_gym_to_mergeable_bpe_ranks(str(folder / "vocab.bpe"), str(folder / "encoder.json"))
    peer = tiktoken.Encoding("gpt2", pat_str=TIKTOKENS_PATTERN, mergeable_ranks=ranks, special_tokens={})
    merges = read_vocabulary(read_published(folder)).merges
    assert merges is not None
    return peer, Tokenizer.from_published(folder), bpe.BytePairEncoding(merges, bpe.SPLIT_PATTERNS["gpt2"])


def gpt2_tiktoken(folder: Path) -> tiktoken.Encoding:
    """GPT-2's encoding as tiktoken itself builds it, from files on this machine."""
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    ranks = data_gym_to_mergeable_bpe_ranks(str(folder / "vocab.bpe"), str(folder / "encoder.json"))
    own_pattern = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
    return tiktoken.Encoding("gpt2", pat_str=own_pattern, mergeable_ranks=ranks, special_tokens={})


def files_of_text(folder: Path) -> Iterator[tuple[str, str]]:
    """Every file of a folder, unpacked, as text; what is no UTF-8 is replaced."""
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                for member in archive.namelist():
                    yield f"{name}/{member}", archive.read(member).decode("utf-8", "replace")
        elif name.endswith(".tar.gz"):
            with tarfile.open(path) as archive:
                for member in archive:
                    if (file := archive.extractfile(member)) is not None:
                        yield f"{name}/{member.name}", file.read().decode("utf-8", "replace")
        elif path.is_file() and not name.endswith(".bin.gz"):
            data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            yield name, data.decode("utf-8", "replace")


def random_texts(rng: random.Random, n_texts: int) -> list[str]:
    return ["".join(rng.choices(KNOWN_CHARACTERS, k=rng.randint(1, 40))) for _ in range(n_texts)]


def test_ids_are_tiktokens_on_random_unicode(coders: Coders) -> None:
    peer, ours, textbook = coders
    texts = random_texts(random.Random(1), N_RANDOM_TEXTS)
    expected = [peer.encode_ordinary(text) for text in texts]
    assert [ours.encode(text) for text in texts] == expected
    assert [ids.tolist() for ids in ours.encode_batch(texts)] == expected
    assert [textbook.encode(text) for text in texts] == expected


@pytest.mark.slow
def test_ids_are_tiktokens_on_every_real_file(coders: Coders, real_data: Path) -> None:
    peer, ours, textbook = coders
    different = []
    n_files = 0
    for name, text in files_of_text(real_data):
        expected = peer.encode_ordinary(text)
        n_files += 1
        beginning = text[:TEXTBOOK_CHARACTERS]
        same = (
            ours.encode(text) == expected
            and ours.encode_batch([text])[0].tolist() == expected
            and textbook.encode(beginning) == peer.encode_ordinary(beginning)
        )
        if not same:
            different.append(name)
    assert n_files > 100
    assert different == []
