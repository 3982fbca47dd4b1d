"""Peak memory and time of curating once, twice and four times as much text.

    python benchmarks/corpus.py memory FILE.jsonl.gz [--megabytes 1000]

The text is made from the sentences of FILE (real stories, say), put together at random: no two documents are alike,
but for one in twenty, which is an edited copy of an earlier one. Each size is curated in a process of its own, with
near-duplicates dropped; its peak resident memory is what the system counted for it. Targets: 4 GB of text in under
4 GB of resident memory, and processor time that grows as the text does (the clock's depends on what else runs).
"""

import argparse
import gzip
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

FILE_BYTES = 64_000_000
SIZES = (1, 2, 4)
COPIES_ONE_IN = 20
TARGET_GIGABYTES = 4.0
# Processor seconds for each byte of the largest size, over those of the smallest.
TARGET_GROWTH = 1.25

CURATE = """
import json, resource, sys, time
from pathlib import Path
from hornbook.corpus.curate import curate
from hornbook.recipe_data import CorpusSection, StoryworldSection

started = time.perf_counter()
corpus = CorpusSection(source=f"files:{sys.argv[1]}/*.jsonl", deduplicate="minhash")
report = curate(corpus, StoryworldSection(), Path(sys.argv[2]))
used = resource.getrusage(resource.RUSAGE_SELF)
seconds = time.perf_counter() - started, used.ru_utime + used.ru_stime
print(json.dumps([*seconds, used.ru_maxrss * 1024, report["documents"]["read"], report["documents"]["kept"]]))
"""


def write_texts(source: Path, folder: Path, n_bytes: int) -> None:
    """Documents of 8 to 15 sentences in files of about FILE_BYTES."""
    with (gzip.open if source.suffix == ".gz" else open)(source, "rt", encoding="utf-8") as file:
        sentences = [s for line in file for s in json.loads(line)["text"].split(". ") if 20 < len(s) < 300]
    rng = random.Random(1)
    written, number, latest = 0, 0, [sentences[:10]]
    while written < n_bytes:
        with open(folder / f"{number:04}.jsonl", "w", encoding="utf-8") as file:
            while file.tell() < FILE_BYTES and written < n_bytes:
                if rng.randrange(COPIES_ONE_IN):
                    document = rng.choices(sentences, k=rng.randint(8, 15))
                    latest = [*latest[-999:], document]
                else:
                    document = list(rng.choice(latest))
                    document[rng.randrange(len(document))] = "And that was that"
                text = ". ".join(document) + "."
                file.write(json.dumps({"text": text}) + "\n")
                written += len(text.encode())
        number += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument(
        "--megabytes", type=int, default=1000, help="the smallest size; the others are 2 and 4 times it"
    )
    options = parser.parse_args()
    rates, peak = [], 0.0
    for size in SIZES:
        with tempfile.TemporaryDirectory() as name:
            texts, out = Path(name, "in"), Path(name, "out")
            texts.mkdir()
            n_bytes = size * options.megabytes * 10**6
            write_texts(options.file, texts, n_bytes)
            done = subprocess.run(
                [sys.executable, "-c", CURATE, str(texts), str(out)], check=True, stdout=subprocess.PIPE, text=True
            )
        seconds, cpu_seconds, peak_bytes, n_read, n_kept = json.loads(done.stdout.splitlines()[-1])
        peak = peak_bytes / 1e9
        rates.append(cpu_seconds / n_bytes)
        print(
            f"{n_bytes / 1e6:,.0f} MB, {n_read:,} documents ({n_kept:,} kept): {seconds:.1f} s, "
            f"of the processor {cpu_seconds:.1f} s, {n_bytes / 1e6 / seconds:.1f} MB/s, "
            f"peak resident memory {peak:.2f} GB",
            flush=True,
        )
    growth = rates[-1] / rates[0]
    print(f"processor time a byte, largest over smallest: {growth:.2f} (target at most {TARGET_GROWTH})")
    print(f"peak resident memory of the largest: {peak:.2f} GB (target for 4 GB of text: under {TARGET_GIGABYTES})")
