"""MinHash deduplication against exact Jaccard over all pairs of real texts, and its speed beside datatrove's.

    python benchmarks/corpus.py deduplicate FILE.jsonl.gz [FILE.txt.gz ...] [--peer-python PYTHON]

Edited copies are planted among real texts so that their Jaccard similarity to the original is spread over 0.4 to
1. The truth is the exact similarity of all pairs, counted with Python's own words and sets, not with the code under
test. Outside a band of ±0.05 around the threshold, recall is the share of similar pairs of which at most one is
kept; precision is the share of the dropped documents that are similar to the one they are said to repeat.
PYTHON is an interpreter with datatrove 0.10.1; runs are interleaved, and the median of several is printed.
"""

import argparse
import gzip
import json
import random
import re
import statistics
import subprocess
import tempfile
import time
import unicodedata
from collections import defaultdict
from pathlib import Path

import numpy
import pyarrow
import pyarrow.parquet

from hornbook.corpus import minhash
from hornbook.corpus.deduplicate import find_repeats, plain, text_key
from hornbook.corpus.engine import load_daft

BAND = 0.05
TARGET = 0.99
TARGET_RATIO = 50
SHINGLE_WORDS = 5
WORDS_PER_PART = 200


def real_texts(paths: list[Path]) -> list[str]:
    """Documents of jsonl files; text files in parts of some hundred words."""
    texts = []
    for path in paths:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            data = file.read().decode("utf-8", "replace")
        if ".jsonl" in path.name:
            texts += [json.loads(line)["text"] for line in data.split("\n") if line]
        else:
            words = data.split()
            texts += [" ".join(words[n : n + WORDS_PER_PART]) for n in range(0, len(words), WORDS_PER_PART)]
    return texts


def plant(texts: list[str], n_copies: int, rng: random.Random) -> list[str]:
    """The texts and edited copies of some of them, in a random order."""
    vocabulary = sorted({word for text in texts[:2000] for word in text.split()})
    copies = []
    for text in rng.sample([text for text in texts if len(text.split()) >= 40], n_copies):
        words = text.split()
        # A word changed far from others costs SHINGLE_WORDS shingles on both sides.
        similarity = rng.uniform(0.4, 1)
        n_edits = round(len(words) * (1 - similarity) / (1 + similarity) / SHINGLE_WORDS)
        for place in rng.sample(range(len(words)), n_edits):
            words[place] = rng.choice(vocabulary)
        copies.append(" ".join(words))
    mixed = [*texts, *copies]
    rng.shuffle(mixed)
    return mixed


def shingles(text: str) -> set[str]:
    """The runs of words, after Python's own normalisation."""
    text = unicodedata.normalize("NFD", text.lower())
    words = re.sub(r"""[!-/:-@\[-`{-~]""", "", text).split()
    return {" ".join(words[n : n + SHINGLE_WORDS]) for n in range(max(1, len(words) - SHINGLE_WORDS + 1))}


def exact_pairs(texts: list[str], least: float) -> dict[tuple[int, int], float]:
    """The Jaccard similarity of all pairs that have at least `least`, by counting shared shingles."""
    numbers: dict[str, int] = {}
    sets = [[numbers.setdefault(s, len(numbers)) for s in shingles(text)] for text in texts]
    sizes = numpy.array([len(s) for s in sets])
    earlier: dict[int, list[int]] = defaultdict(list)
    found = {}
    for document, own in enumerate(sets):
        lists = [earlier[shingle] for shingle in own if shingle in earlier]
        if lists:
            shared = numpy.bincount(numpy.concatenate(lists))
            others = numpy.flatnonzero(shared)
            similarity = shared[others] / (sizes[others] + sizes[document] - shared[others])
            for other, value in zip(others[similarity >= least], similarity[similarity >= least], strict=True):
                found[int(other), document] = float(value)
        for shingle in own:
            earlier[shingle].append(document)
    return found


class InMemory:
    """Digests for `find_near_duplicates`."""

    def __init__(self, made: minhash.Digest) -> None:
        self._made = made

    def band(self, number: int, positions: numpy.ndarray) -> numpy.ndarray:
        return self._made.bands[number, positions]

    def low_bytes(self, positions: numpy.ndarray) -> numpy.ndarray:
        return self._made.low_bytes[positions]


def deduplicate(source: Path, out: Path, threshold: float) -> numpy.ndarray:
    """Read jsonl, drop near-duplicates, write what is left. Returns for each document which it repeats, or -1."""
    daft = load_daft()
    text = daft.col("text")
    query = daft.read_json(str(source)).select(text, plain(text).alias("plain"))
    columns = (text, text_key(daft.col("plain")).alias("key"), minhash.signature(daft.col("plain")).alias("signature"))
    table = query.select(*columns).to_arrow().combine_chunks()
    repeats = find_repeats(table["key"].to_numpy())
    firsts = numpy.flatnonzero(repeats < 0)
    cut = minhash.banding(threshold)
    signatures = table["signature"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
    near = minhash.find_near_duplicates(InMemory(minhash.digest(signatures, cut)), firsts, cut, threshold)
    repeats[firsts[near >= 0]] = firsts[near[near >= 0]]
    pyarrow.parquet.write_table(table.select(["text"]).filter(pyarrow.array(repeats < 0)), out)
    return repeats


def write(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def report_quality(texts: list[str], folder: Path, thresholds: list[float]) -> None:
    pairs = exact_pairs(texts, min(thresholds) - 0.2)
    print(f"{len(texts):,} documents, {len(pairs):,} pairs of similarity {min(thresholds) - 0.2:.2f} and more")
    for threshold in thresholds:
        repeats = deduplicate(folder / "in.jsonl", folder / "out.parquet", threshold)
        is_kept = repeats < 0
        clear = [pair for pair, value in pairs.items() if value >= threshold + BAND]
        caught = sum(not (is_kept[i] and is_kept[j]) for i, j in clear)
        dropped = numpy.flatnonzero(~is_kept)
        right = sum(pairs.get((int(repeats[n]), int(n)), 0) >= threshold - BAND for n in dropped)
        recall, precision = caught / len(clear), right / len(dropped)
        print(
            f"threshold {threshold}: {minhash.banding(threshold)}; recall {recall:.4f} of {len(clear):,} pairs, "
            f"precision {precision:.4f} of {len(dropped):,} dropped (target {TARGET} each: "
            f"{'met' if min(recall, precision) >= TARGET else 'MISSED'})"
        )


def report_speed(source: Path, folder: Path, n_documents: int, peer: str, repeats: int, workers: int) -> None:
    ours, theirs = [], []
    for number in range(repeats):
        started = time.perf_counter()
        kept = int((deduplicate(source, folder / "speed.parquet", 0.75) < 0).sum())
        ours.append(n_documents / (time.perf_counter() - started))
        script = Path(__file__).with_name("datatrove_minhash.py")
        command = [peer, str(script), str(source), str(folder / f"peer-{number}"), str(workers)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds, peer_kept = done.stdout.split()[-2:]
        theirs.append(n_documents / float(seconds))
    ratio = statistics.median(ours) / statistics.median(theirs)
    print(
        f"{n_documents:,} documents: {statistics.median(ours):,.0f} documents/s ({kept:,} kept), datatrove "
        f"{statistics.median(theirs):,.0f} ({int(peer_kept):,} kept): ratio {ratio:.0f} "
        f"(target {TARGET_RATIO}: {'met' if ratio >= TARGET_RATIO else 'MISSED'})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--copies", type=int, default=3000, help="edited copies to plant")
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.6, 0.75, 0.9])
    parser.add_argument("--peer-python", help="an interpreter with datatrove")
    parser.add_argument("--peer-documents", type=int, default=2000)
    parser.add_argument("--peer-workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    texts = plant(real_texts(options.files), options.copies, random.Random(1))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "in.jsonl", texts)
        report_quality(texts, folder, options.thresholds)
        if options.peer_python:
            sample = texts[: options.peer_documents]
            source = write(folder / "sample.jsonl", sample)
            report_speed(source, folder, len(sample), options.peer_python, options.repeats, options.peer_workers)
