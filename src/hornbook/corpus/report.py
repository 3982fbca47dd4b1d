"""The corpus report: what came in, what was kept, what was dropped by which rule, and how well the rules did.

Counts always add up: read = set aside + dropped + kept. The two splits count a document as often as the weight of its
source takes it. Of each rule some of
the documents that it dropped are shown, spread over the whole run. Where the storyworld says what is wrong with
a page, the report also has the precision and recall of dropping, by rule and by kind of mess.
"""

from collections import Counter, defaultdict
from typing import Any

import numpy
import pyarrow
import pyarrow.compute

from hornbook.corpus.deduplicate import DUPLICATE, NEAR_DUPLICATE
from hornbook.corpus.histograms import Histograms
from hornbook.corpus.mixing import NOT_TAKEN
from hornbook.corpus.report_quality import Quality
from hornbook.corpus.sampling import draws
from hornbook.recipe_data import CorpusSection

SAMPLES = 10


class ReportWriter:
    """Counts documents table by table; `finish` gives the report."""

    def __init__(self, corpus: CorpusSection) -> None:
        self._documents: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._lost: dict[str, _Lost] = defaultdict(_Lost)
        self._problems: set[str] = set()
        self._generator_bits = 0.0
        self._quality = Quality(corpus)
        self._histograms = Histograms(corpus.filters)

    def add(self, documents: pyarrow.Table, kept: pyarrow.Table, dropped: pyarrow.Table) -> None:
        """Count one table of judged documents, which were parted into those kept and those dropped."""
        readable = documents.filter(pyarrow.compute.is_null(documents["problem"]))
        self._count("read", len(documents), _sum(documents, "n_raw_bytes"))
        self._count("cleaned", len(readable), _sum(readable, "n_bytes"))
        self._count("kept", len(kept), _sum(kept, "n_bytes"))
        for split in ("train", "validation"):
            part = kept.filter(pyarrow.compute.equal(kept["split"], split))
            bytes_taken = pyarrow.compute.sum(pyarrow.compute.multiply(part["times"], part["n_bytes"])).as_py() or 0
            self._count(split, int(_sum(part, "times")), bytes_taken)
        known = part.filter(pyarrow.compute.is_valid(part["generator_bits"]))
        self._count("validation_with_generator_bits", len(known), _sum(known, "n_bytes"))
        self._generator_bits += _sum(known, "generator_bits")
        self._problems.update(dropped["problem"].drop_null().unique().to_pylist())
        reasons = dropped["reasons"].combine_chunks()
        row_of_reason = pyarrow.compute.list_parent_indices(reasons).to_numpy()
        encoded = pyarrow.compute.list_flatten(reasons).dictionary_encode()
        codes, drawn = encoded.indices.to_numpy(), draws(dropped["id"])
        for code, reason in enumerate(encoded.dictionary.to_pylist()):
            self._lost[reason].add(dropped, drawn, row_of_reason[codes == code])
        self._quality.add(kept, dropped)
        self._histograms.add(kept, dropped)

    def finish(self, seconds: float) -> dict[str, Any]:
        """The report, ready to be written as JSON.

        `seconds` is what the whole curation took; megabytes (10^6 bytes) per second are those of the raw
        text.
        """
        documents, n_bytes = self._documents, self._bytes
        known_bytes = n_bytes["validation_with_generator_bits"]
        for sound in (self._lost[reason] for reason in (DUPLICATE, NEAR_DUPLICATE, NOT_TAKEN) if reason in self._lost):
            documents["sound"] += sound.documents
            n_bytes["sound"] += sound.bytes
        steps = {"read": ["read"], "cleaned": ["cleaned"], "filtered": ["kept", "sound"], "kept": ["kept"]}
        return {
            "documents": {
                "read": documents["read"],
                "set_aside": documents["read"] - documents["cleaned"],
                "dropped": documents["cleaned"] - documents["kept"],
                "kept": documents["kept"],
                "train": documents["train"],
                "validation": documents["validation"],
            },
            "steps": [
                {
                    "step": step,
                    "documents": sum(documents[p] for p in parts),
                    "bytes": sum(n_bytes[p] for p in parts),
                }
                for step, parts in steps.items()
            ],
            "bytes": {split: n_bytes[split] for split in ("train", "validation")},
            "set_aside": self._lost_for(self._problems),
            "dropped": self._lost_for(set(self._lost) - self._problems),
            "generator": {
                "validation_documents": documents["validation_with_generator_bits"],
                "validation_documents_without_bits": documents["validation"]
                - documents["validation_with_generator_bits"],
                "validation_bits_per_byte": self._generator_bits / known_bytes if known_bytes else None,
            },
            "quality": self._quality.finish(),
            "histograms": self._histograms.finish(),
            "seconds": round(seconds, 3),
            "raw_megabytes_per_second": round(n_bytes["read"] / 1e6 / seconds, 3),
        }

    def _count(self, step: str, n_documents: int, n_bytes: float) -> None:
        self._documents[step] += n_documents
        self._bytes[step] += int(n_bytes)

    def _lost_for(self, reasons: set[str]) -> dict[str, Any]:
        return {reason: self._lost[reason].finish() for reason in sorted(reasons)}


class _Lost:
    """What one reason cost: documents, bytes, documents lost for no other reason, samples."""

    def __init__(self) -> None:
        self.documents = 0
        self.bytes = 0
        self.documents_for_this_reason_alone = 0
        self._drawn: list[tuple[int, str, str]] = []

    def add(self, dropped: pyarrow.Table, drawn: numpy.ndarray, rows: numpy.ndarray) -> None:
        """Count those rows of a table of dropped documents; `drawn` has a number for each document of it."""
        lost = dropped.take(pyarrow.array(rows))
        self.documents += len(lost)
        self.bytes += int(_sum(lost, "n_bytes"))
        n_reasons = pyarrow.compute.list_value_length(lost["reasons"]).to_numpy()
        self.documents_for_this_reason_alone += int((n_reasons == 1).sum())
        sampled = numpy.argsort(drawn[rows], kind="stable")[:SAMPLES]
        few = lost.select(["id", "excerpt"]).take(pyarrow.array(sampled)).to_pylist()
        numbers = drawn[rows][sampled].tolist()
        more = [(number, row["id"], row["excerpt"]) for number, row in zip(numbers, few, strict=True)]
        self._drawn = sorted([*self._drawn, *more], key=lambda sample: sample[0])[:SAMPLES]

    def finish(self) -> dict[str, Any]:
        return {
            "documents": self.documents,
            "bytes": self.bytes,
            "documents_for_this_reason_alone": self.documents_for_this_reason_alone,
            "samples": [{"id": name, "excerpt": excerpt} for _, name, excerpt in self._drawn],
        }


def _sum(table: pyarrow.Table, column: str) -> float:
    return pyarrow.compute.sum(table[column]).as_py() or 0
