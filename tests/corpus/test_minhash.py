"""MinHash finds what is similar, as exact Jaccard over all pairs says, and keeps the first of each cluster."""

import random
from itertools import combinations

import numpy
import pytest

from hornbook.corpus.engine import load_daft
from hornbook.corpus.minhash import (
    N_HASHES,
    SHINGLE_WORDS,
    Banding,
    StoredDigests,
    banding,
    digest,
    estimated_jaccard,
    find_near_duplicates,
    signature,
)

THRESHOLD = 0.75


def shingles(text: str) -> set[str]:
    words = text.split()
    return {" ".join(words[i : i + SHINGLE_WORDS]) for i in range(max(1, len(words) - SHINGLE_WORDS + 1))}


def jaccard(first: str, second: str) -> float:
    a, b = shingles(first), shingles(second)
    return len(a & b) / len(a | b)


def signatures(texts: list[str]) -> numpy.ndarray:
    daft = load_daft()
    column = daft.from_pydict({"text": texts}).select(signature(daft.col("text")).alias("s")).to_arrow()["s"]
    return column.combine_chunks().flatten().to_numpy().reshape(len(texts), N_HASHES)


class InMemory:
    def __init__(self, texts: list[str], cut: Banding) -> None:
        self._digest = digest(signatures(texts), cut)

    def band(self, number, positions):
        return self._digest.bands[number, positions]

    def low_bytes(self, positions):
        return self._digest.low_bytes[positions]


def keepers(texts: list[str], threshold: float = THRESHOLD) -> list[int]:
    cut = banding(threshold)
    return find_near_duplicates(InMemory(texts, cut), numpy.arange(len(texts)), cut, threshold).tolist()


def family(rng: random.Random, n_words: int, most_edits: int, size: int) -> list[str]:
    """A text and edited copies of it."""
    words = [f"w{rng.randrange(10**6)}" for _ in range(n_words)]
    copies = [words]
    while len(copies) < size:
        copy = list(words)
        for place in rng.sample(range(n_words), rng.randint(1, most_edits)):
            copy[place] = f"x{rng.randrange(10**6)}"
        copies.append(copy)
    return [" ".join(copy) for copy in copies]


@pytest.fixture(scope="module")
def families() -> list[str]:
    rng = random.Random(1)
    texts = [text for _ in range(150) for text in family(rng, rng.randint(60, 300), 12, rng.randint(1, 5))]
    rng.shuffle(texts)
    return texts


@pytest.fixture(scope="module")
def similar(families) -> dict[tuple[int, int], float]:
    """The truth: exact Jaccard over all pairs."""
    sets = [shingles(text) for text in families]
    pairs = combinations(range(len(families)), 2)
    return {(i, j): len(sets[i] & sets[j]) / len(sets[i] | sets[j]) for i, j in pairs if sets[i] & sets[j]}


def test_the_estimate_is_unbiased_with_the_standard_error_of_the_theory():
    rng = random.Random(2)
    pairs = [family(rng, rng.randint(60, 200), 15, 2) for _ in range(400)]
    low_bytes = digest(signatures([text for pair in pairs for text in pair]), banding(THRESHOLD)).low_bytes
    truth = numpy.array([jaccard(*pair) for pair in pairs])
    error = estimated_jaccard(low_bytes[::2], low_bytes[1::2]) - truth
    z = error / numpy.sqrt(truth * (1 - truth) / N_HASHES)
    assert abs(z.mean()) < 0.2  # four standard errors
    assert 0.85 < z.std() < 1.15


def test_what_is_dropped_has_its_like_among_the_kept_and_no_two_kept_are_alike(families, similar):
    keeper = keepers(families)
    kept = {n for n, k in enumerate(keeper) if k < 0}
    dropped = [(k, n) for n, k in enumerate(keeper) if k >= 0]
    assert all(k in kept and k < n for k, n in dropped)
    assert sum(similar[pair] >= THRESHOLD - 0.05 for pair in dropped) >= 0.99 * len(dropped)
    clear = [pair for pair, value in similar.items() if value >= THRESHOLD + 0.05]
    missed = [pair for pair in clear if set(pair) <= kept]
    assert len(clear) > 100
    assert len(missed) <= 0.01 * len(clear)


def test_no_text_without_a_like_is_dropped(families, similar):
    keeper = keepers(families)
    with_like = {n for pair, value in similar.items() if value >= THRESHOLD - 0.1 for n in pair}
    assert all(keeper[n] < 0 for n in range(len(families)) if n not in with_like)


def test_the_ends_of_a_chain_both_stay():
    words = [f"w{n}" for n in range(480)]
    chain = [" ".join(words[start : start + 400]) for start in (0, 40, 80)]
    assert jaccard(chain[0], chain[1]) == jaccard(chain[1], chain[2]) > 0.81
    assert jaccard(chain[0], chain[2]) < 0.67
    assert keepers(chain, threshold=0.74) == [-1, 0, -1]
    assert keepers([chain[1], chain[0], chain[2]], threshold=0.74) == [-1, 0, 0]


def test_short_texts_are_alike_only_where_they_are_the_same():
    assert keepers(["the cat sat", "the cat sat down", "the cat", "the cat sat", ""]) == [-1, -1, -1, 0, -1]


def test_many_copies_of_one_text_take_few_comparisons():
    text = " ".join(f"w{n}" for n in range(50))
    counted = []

    class Counting(InMemory):
        def low_bytes(self, positions):
            counted.append(len(positions))
            return super().low_bytes(positions)

    texts = [f"{text} {n}" for n in range(500)]
    cut = banding(THRESHOLD)
    keeper = find_near_duplicates(Counting(texts, cut), numpy.arange(500), cut, THRESHOLD)
    assert keeper.tolist() == [-1, *[0] * 499]
    assert sum(counted) < 5000


@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.75, 0.8, 0.9, 1.0])
def test_bands_miss_few_pairs_at_the_threshold_and_next_to_none_above_it(threshold):
    cut = banding(threshold)
    assert cut.n_bands * cut.n_rows <= N_HASHES
    assert cut.meeting(threshold) >= 0.99
    assert cut.meeting(min(1, threshold + 0.05)) >= 0.999
    assert cut.meeting(threshold - 0.35) < 0.4


def test_digests_in_files_are_those_in_memory_whatever_the_files(families, tmp_path):
    cut = banding(THRESHOLD)
    whole = InMemory(families, cut)
    files = []
    for number, positions in enumerate(numpy.array_split(numpy.arange(len(families)), 3)):
        made = digest(signatures([families[n] for n in positions]), cut)
        files.append((tmp_path / f"bands-{number}.npy", tmp_path / f"low-{number}.npy"))
        for path, array in zip(files[-1], made, strict=True):
            numpy.save(path, array)
    stored = StoredDigests(files)
    positions = numpy.random.Generator(numpy.random.PCG64(1)).permutation(len(families))[:200]
    assert (stored.band(3, positions) == whole.band(3, positions)).all()
    assert (stored.low_bytes(positions) == whole.low_bytes(positions)).all()
    assert find_near_duplicates(stored, numpy.arange(len(families)), cut, THRESHOLD).tolist() == keepers(families)
