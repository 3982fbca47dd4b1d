"""Learning merges, and encoding with them, beside tiktoken and the `tokenizers` library.

    python benchmarks/tokenizer.py FILE.jsonl.gz [FILE.txt.gz ...] [--gpt2 FOLDER] [--megabytes 20] [--vocab_size 8192]

Texts come from the "text" of jsonl files and from text files in parts of some pages, mixed, up to so many MB. One
vocabulary is learned by us and by `tokenizers`. With it each of three encodes the same documents one by one on one
thread; then a whole corpus is encoded on all cores and written as token shards, as the tokens stage does it, with
gigatoken where it is installed (hornbook[accelerate]) and without. FOLDER holds GPT-2's vocab.bpe and encoder.json.

Rounds are interleaved and medians are printed, in MB of text for each second of processor time, so that threads and
the rest of the machine have no part in it. The ids of all are compared first, and must be the same.
"""

import argparse
import gzip
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tiktoken
import tokenizers
from tiktoken.load import data_gym_to_mergeable_bpe_ranks
from tokenizers import Regex, models, pre_tokenizers, trainers

from hornbook.batching.shards import DocumentTokens, write_shards
from hornbook.tokenizer import bpe
from hornbook.tokenizer.tokenizer import SPECIAL_TOKENS, Tokenizer

PATTERN = "llama3"
CHARACTERS_PER_PART = 5000
SHARE_FOR_TOKENIZERS = 8  # it is so slow that it gets an eighth of the documents
ROUNDS = 5
# What tiktoken itself has for GPT-4, whose words are those of Llama 3's pattern, and for GPT-2.
TIKTOKENS_PATTERNS = {
    "llama3": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$"
    r"|\s*[\r\n]|\s+(?!\S)|\s",
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
}


def read_texts(paths: Sequence[Path], n_bytes: int) -> list[str]:
    """Documents of all files in a random order, up to so many bytes."""
    texts = []
    for path in paths:
        data = (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode(
            errors="replace"
        )
        if ".jsonl" in path.name:
            texts += [json.loads(line)["text"] for line in data.split("\n") if line]
        else:
            texts += [data[at : at + CHARACTERS_PER_PART] for at in range(0, len(data), CHARACTERS_PER_PART)]
    random.Random(1).shuffle(texts)
    taken = np.cumsum([len(text.encode()) for text in texts])
    return texts[: int(np.searchsorted(taken, n_bytes)) + 1]


def learn_with_peer(texts: Sequence[str], vocab_size: int) -> list[bpe.Merge]:
    """What the trainer of `tokenizers` learns."""
    peer = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(bpe.SPLIT_PATTERNS[PATTERN]), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    peer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    peer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    )
    byte_of = bpe.character_bytes()
    pairs = json.loads(peer.to_str())["model"]["merges"]
    return [(bytes(byte_of[c] for c in left), bytes(byte_of[c] for c in right)) for left, right in pairs]


@contextmanager
def without_gigatoken() -> Iterator[None]:
    """Tokenizers made in this block do not find it."""
    found = sys.modules.get("gigatoken")
    sys.modules["gigatoken"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["gigatoken"]
        if found is not None:
            sys.modules["gigatoken"] = found


def compare(what: str, contestants: dict[str, tuple[Callable[[], object], int]]) -> None:
    """Run all in turn, several times; print each median, and the first over each of the others."""
    speeds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(ROUNDS):
        for name, (encode, n_bytes) in contestants.items():
            started = time.process_time()
            encode()
            speeds[name].append(n_bytes / 1e6 / (time.process_time() - started))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    ours, *others = medians
    print(f"\n{what}, MB for each second of processor time, median of {ROUNDS}:")
    for name, median in medians.items():
        print(f"  {name:<34}{median:8.1f}   {min(speeds[name]):.1f} to {max(speeds[name]):.1f}")
    for name in others:
        print(f"  {ours} / {name}: {medians[ours] / medians[name]:.2f}")


def one_by_one(name: str, texts: Sequence[str], ours: Tokenizer, peer: tiktoken.Encoding, folder: Path) -> None:
    """Documents by themselves: our engine, tiktoken as it comes, and `tokenizers` with our file."""
    ours.save(folder)
    library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    few = texts[::SHARE_FOR_TOKENIZERS]
    for text in texts:
        assert ours.encode(text) == peer.encode_ordinary(text)
    assert all(ours.encode(text) == library.encode(text).ids for text in few)
    n_bytes, n_few = (sum(len(text.encode()) for text in part) for part in (texts, few))
    contestants: dict[str, tuple[Callable[[], object], int]] = {
        "hornbook": (lambda: [ours.encode(text) for text in texts], n_bytes),
        "tiktoken": (lambda: [peer.encode_ordinary(text) for text in texts], n_bytes),
        "tokenizers": (lambda: [library.encode(text).ids for text in few], n_few),
    }
    compare(f"one document after the other, {name}", contestants)


def whole_corpus(
    texts: Sequence[str], ours: Tokenizer, plain: Tokenizer, peer: tiktoken.Encoding, folder: Path
) -> None:
    """Encoding in bulk and writing shards: with what is installed, without the accelerator, and with tiktoken."""
    for fast, slow in zip(ours.encode_batch(texts), plain.encode_batch(texts), strict=True):
        assert np.array_equal(fast, slow)

    def tokenize(encode_batch: Callable[[Sequence[str]], Sequence[Sequence[int] | np.ndarray]]) -> None:
        documents = (
            DocumentTokens(ids, 0) for at in range(0, len(texts), 4096) for ids in encode_batch(texts[at : at + 4096])
        )
        write_shards(folder, "train", documents, ours.vocab_size, "")

    n_bytes = sum(len(text.encode()) for text in texts)
    threads = os.cpu_count() or 1
    contestants: dict[str, tuple[Callable[[], object], int]] = {
        "hornbook, accelerated": (lambda: tokenize(ours.encode_batch), n_bytes),
        "hornbook, plain": (lambda: tokenize(plain.encode_batch), n_bytes),
        "tiktoken": (
            lambda: tokenize(lambda part: peer.encode_ordinary_batch(list(part), num_threads=threads)),
            n_bytes,
        ),
    }
    if not ours.is_accelerated:
        print("\ngigatoken is not installed")
        del contestants["hornbook, accelerated"]
    compare("a whole corpus, encoded and written as shards", contestants)
    if ours.is_accelerated:
        encoding: dict[str, tuple[Callable[[], object], int]] = {
            "hornbook, accelerated": (lambda: ours.encode_batch(texts), n_bytes),
            "hornbook, plain": (lambda: plain.encode_batch(texts), n_bytes),
            "tiktoken": (lambda: peer.encode_ordinary_batch(list(texts), num_threads=threads), n_bytes),
        }
        compare("a whole corpus, encoded alone", encoding)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--gpt2", type=Path)
    parser.add_argument("--megabytes", type=float, default=20)
    parser.add_argument("--vocab_size", type=int, default=8192)
    options = parser.parse_args()
    texts = read_texts(options.files, int(options.megabytes * 1e6))
    n_bytes = sum(len(text.encode()) for text in texts)
    print(f"{len(texts):,} documents, {n_bytes / 1e6:.1f} MB, {os.cpu_count()} cores")

    started, processor = time.perf_counter(), time.process_time()
    merges = bpe.train(texts, options.vocab_size, bpe.SPLIT_PATTERNS[PATTERN])
    print(
        f"\nlearning {options.vocab_size:,} tokens: {time.perf_counter() - started:.1f} s "
        f"({time.process_time() - processor:.1f} s of one processor)"
    )
    started, processor = time.perf_counter(), time.process_time()
    theirs = learn_with_peer(texts, options.vocab_size)
    print(
        f"tokenizers: {time.perf_counter() - started:.1f} s ({time.process_time() - processor:.1f} s of processors); "
        f"the merges are {'the same' if merges == theirs else 'NOT THE SAME'}"
    )

    some = texts[: max(1, len(texts) // 4)]
    ours = Tokenizer.from_merges(merges, bpe.SPLIT_PATTERNS[PATTERN])
    ranks = {ours.token_bytes(id): id for id in range(ours.vocab_size - len(SPECIAL_TOKENS))}
    peer = tiktoken.Encoding("", pat_str=TIKTOKENS_PATTERNS[PATTERN], mergeable_ranks=ranks, special_tokens={})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one_by_one(f"our vocabulary of {options.vocab_size:,}", some, ours, peer, folder)
        if options.gpt2:
            ranks = data_gym_to_mergeable_bpe_ranks(*(str(options.gpt2 / n) for n in ("vocab.bpe", "encoder.json")))
            gpt2 = tiktoken.Encoding("", pat_str=TIKTOKENS_PATTERNS["gpt2"], mergeable_ranks=ranks, special_tokens={})
            one_by_one("GPT-2's vocabulary", some, Tokenizer.from_published(options.gpt2), gpt2, folder)
        with without_gigatoken():
            plain = Tokenizer.from_merges(merges, bpe.SPLIT_PATTERNS[PATTERN])
        whole_corpus(texts, ours, plain, peer, folder)


if __name__ == "__main__":
    main()
