"""The corpus report: what came in, what was kept, what was dropped by which rule, and how well the rules did.

Counts always add up: read = set aside + dropped + kept. The two splits count a document as often as the weight of its
source takes it. Where the storyworld says what is wrong with a page,
the report also has the precision and recall of dropping, by rule and by kind of mess.
"""

from collections import Counter, defaultdict
from typing import Any

import pyarrow
import pyarrow.compute

from hornbook.corpus.deduplicate import DUPLICATE, NEAR_DUPLICATE

SAMPLES = 3


class ReportWriter:
    """Counts documents table by table; `finish` gives the report."""

    def __init__(self) -> None:
        self._documents: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._lost: dict[str, _Lost] = defaultdict(_Lost)
        self._problems: set[str] = set()
        self._generator_bits = 0.0
        self._quality = _Quality()

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
        for row in dropped.select(["id", "problem", "reasons", "n_bytes", "excerpt"]).to_pylist():
            if row["problem"]:
                self._problems.add(row["problem"])
            for reason in row["reasons"]:
                self._lost[reason].add(row)
        self._quality.add(kept, dropped)

    def finish(self, seconds: float) -> dict[str, Any]:
        """The report, ready to be written as JSON.

        `seconds` is what the whole curation took; megabytes (10^6 bytes) per second are those of the raw
        text.
        """
        documents, n_bytes = self._documents, self._bytes
        known_bytes = n_bytes["validation_with_generator_bits"]
        for repeats in (self._lost[reason] for reason in (DUPLICATE, NEAR_DUPLICATE) if reason in self._lost):
            documents["repeats"] += repeats.documents
            n_bytes["repeats"] += repeats.bytes
        steps = {"read": ["read"], "cleaned": ["cleaned"], "filtered": ["kept", "repeats"], "kept": ["kept"]}
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
            "seconds": round(seconds, 3),
            "raw_megabytes_per_second": round(n_bytes["read"] / 1e6 / seconds, 3),
        }

    def _count(self, step: str, n_documents: int, n_bytes: float) -> None:
        self._documents[step] += n_documents
        self._bytes[step] += int(n_bytes)

    def _lost_for(self, reasons: set[str]) -> dict[str, Any]:
        return {reason: vars(self._lost[reason]) for reason in sorted(reasons)}


class _Lost:
    """What one reason cost: documents, bytes, documents lost for no other reason, samples."""

    def __init__(self) -> None:
        self.documents = 0
        self.bytes = 0
        self.documents_for_this_reason_alone = 0
        self.samples: list[dict[str, str]] = []

    def add(self, row: dict[str, Any]) -> None:
        self.documents += 1
        self.bytes += row["n_bytes"]
        self.documents_for_this_reason_alone += len(row["reasons"]) == 1
        if len(self.samples) < SAMPLES:
            self.samples.append({"id": row["id"], "excerpt": row["excerpt"]})


class _Quality:
    """Right and wrong decisions on pages whose answer is known."""

    def __init__(self) -> None:
        self._by_label: dict[str, Counter[str]] = defaultdict(Counter)
        self._by_rule: dict[str, Counter[str]] = defaultdict(Counter)
        self._total: Counter[str] = Counter()

    def add(self, kept: pyarrow.Table, dropped: pyarrow.Table) -> None:
        for table, fate in ((kept, "kept"), (dropped, "dropped")):
            labelled = table.filter(pyarrow.compute.greater(pyarrow.compute.list_value_length(table["labels"]), 0))
            for row in labelled.select(["labels", "reasons", "is_wanted", "is_restored"]).to_pylist():
                worth = "wanted" if row["is_wanted"] else "unwanted"
                self._total[f"{fate}_{worth}"] += 1
                for label in row["labels"]:
                    self._by_label[label].update(documents=1, **{fate: 1})
                    if row["is_wanted"]:
                        self._by_label[label].update(restored_exactly=int(row["is_restored"] and fate == "kept"))
                if fate == "dropped":
                    for reason in row["reasons"]:
                        self._by_rule[reason].update(dropped=1, dropped_rightly=int(worth == "unwanted"))

    def finish(self) -> dict[str, Any] | None:
        """Precision: share of the dropped that deserve it. Recall: share of these that are dropped."""
        if not self._total:
            return None
        rightly = self._total["dropped_unwanted"]
        return {
            "pages": self._total.total(),
            "precision": _share(rightly, rightly + self._total["dropped_wanted"]),
            "recall": _share(rightly, rightly + self._total["kept_unwanted"]),
            "by_rule": {
                rule: {**counts, "precision": _share(counts["dropped_rightly"], counts["dropped"])}
                for rule, counts in sorted(self._by_rule.items())
            },
            "by_label": {label: dict(counts) for label, counts in sorted(self._by_label.items())},
        }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _sum(table: pyarrow.Table, column: str) -> float:
    return pyarrow.compute.sum(table[column]).as_py() or 0
