"""datatrove's four stages of MinHash, run for `deduplicate` by an interpreter that has datatrove.

    python datatrove_minhash.py IN.jsonl WORK WORKERS

Prints the seconds that the four stages took, and how many documents were left.
"""

import gzip
import sys
import time
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers.jsonl import JsonlWriter
from datatrove.utils.hashing import HashConfig


def main() -> None:
    source, work, workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    config = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8, hash_config=HashConfig(precision=64))
    # datatrove divides whole files among its workers.
    split = work / "in"
    split.mkdir(parents=True)
    lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
    for number in range(workers):
        (split / f"{number}.jsonl").write_text("".join(lines[number::workers]), encoding="utf-8")
    signatures, buckets, removed, out = (str(work / name) for name in ("signatures", "buckets", "removed", "out"))
    stages = [
        ([JsonlReader(str(split)), MinhashDedupSignature(signatures, config)], workers),
        ([MinhashDedupBuckets(signatures, buckets, config=config)], config.num_buckets),
        ([MinhashDedupCluster(buckets, removed, config=config)], 1),
        ([JsonlReader(str(split)), MinhashDedupFilter(removed, JsonlWriter(f"{out}-gone")), JsonlWriter(out)], workers),
    ]
    started = time.perf_counter()
    for number, (pipeline, tasks) in enumerate(stages):
        LocalPipelineExecutor(
            pipeline, tasks=tasks, workers=workers, logging_dir=str(work / f"logs-{number}"), skip_completed=False
        ).run()
    seconds = time.perf_counter() - started
    kept = sum(gzip.decompress(path.read_bytes()).count(b"\n") for path in Path(out).glob("*.gz"))
    print(f"{seconds} {kept}")


if __name__ == "__main__":
    main()
