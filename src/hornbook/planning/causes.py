"""The likely causes of a training that does not go as expected, in order, each with the check that would tell.

A sign of the data or of the batches says more than the loss, and the cause that it points to comes first; then the
size of the steps; then what the loss and the gradient alone can say. Every cause is one function over the evidence,
which gives its strength, or nothing.
"""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hornbook.planning.curves import N_WINDOWS, Record, Window
from hornbook.planning.expected import Expectation

_WARMING_WINDOWS = 4
_SAME_RATE = 1.25
_TOO_FEW_TOKENS = 0.8
_OTHER_BYTES = 0.02
_TIMES_TOO_LARGE = 1.5


@dataclass(frozen=True)
class Cause:
    """What may be wrong. strength: for the order alone. is_certain: seen in the data itself, whatever the loss does."""

    name: str
    because: str
    check: str
    strength: float
    is_certain: bool = False


@dataclass(frozen=True)
class Evidence:
    """All that a verdict rests on.

    measured: each figure by windows, as far as they are over. outside: by how much of its mean a figure left its band.
    data: the census of the training data.
    """

    records: Sequence[Record]
    expected: Expectation
    measured: Mapping[str, Sequence[Window]]
    outside: Mapping[str, float]
    data: Mapping[str, float]

    def mean(self, figure: str, since: int = 0) -> float | None:
        """The mean of a figure over the windows so far, from one on, measured."""
        values = [value for value in self.measured.get(figure, ())[since:] if value is not None]
        if not values and figure not in self.measured:
            values = [record[figure] for record in self.records if record.get(figure) is not None]
        return statistics.fmean(values) if values else None

    def ratio(self, figure: str, begin: int = 0, end: int = N_WINDOWS) -> float | None:
        """What was measured over what was expected, the median over windows; None without a reference."""
        band = self.expected.signs.get(figure)
        if band is None:
            return None
        pairs = zip(self.measured[figure][begin:end], band.mean[begin:end], strict=False)
        ratios = [value / mean for value, mean in pairs if value is not None and mean > 0]
        return statistics.median(ratios) if ratios else None

    def known(self, name: str) -> tuple[float, float] | None:
        """A figure of the data: here, and of the reference."""
        if name not in self.data or name not in self.expected.data:
            return None
        return self.data[name], self.expected.data[name]


def likely_causes(evidence: Evidence) -> list[Cause]:
    """The causes that the evidence points to, the likeliest first; one at least."""
    found = [cause for find in _FINDERS for cause in find(evidence)]
    if not found:
        found = [
            Cause(
                "data order or another cause",
                "none of the signs that are watched points anywhere.",
                "Repeat the run with another seed; if it goes the same way, compare recipe and data with the "
                "reference's.",
                0.0,
            )
        ]
    return sorted(found, key=lambda cause: -cause.strength)


def _precision(evidence: Evidence) -> Iterator[Cause]:
    share = _share_not_finite(evidence.records)
    if share > 0.005:
        yield Cause(
            "precision",
            f"in {share:.1%} of the steps the loss or the gradient had no finite value.",
            'Set precision = "float32" for a few hundred steps: if all are finite then, a number overflowed.',
            100 + share,
        )


def _labels(evidence: Evidence) -> Iterator[Cause]:
    share = evidence.mean("next_label_fraction")
    if share is not None and share < 0.95:
        yield Cause(
            "shuffled labels",
            f"only {share:.0%} of the labels are the next token of their document.",
            "Look at `hornbook show RUN --tokens`: each label has to be the token that follows.",
            95,
            is_certain=True,
        )


def _padding_and_mask(evidence: Evidence) -> Iterator[Cause]:
    labelled, top = evidence.outside.get("labelled_fraction"), evidence.outside.get("top_label_fraction")
    if labelled is not None and labelled > 0 and top is not None and top > 0:
        yield Cause(
            "wrong pad",
            "more places have a label than expected, and one label is far too frequent among them.",
            "Look at `hornbook show RUN --tokens`: padding must have no label; compare the tokenizer's pad_id.",
            90,
        )
    if labelled is not None:
        kind = "more" if labelled > 0 else "fewer"
        yield Cause(
            "mask",
            f"{kind} places have a label than expected ({labelled:+.0%}).",
            "Look at `hornbook show RUN --tokens`: only what is to be learned may be coloured.",
            85 if labelled > 0 else 80,
        )
    elif top is not None and top > 0:
        yield Cause(
            "wrong pad",
            f"one label is {top:+.0%} more frequent than expected.",
            "Look at `hornbook show RUN --tokens`: padding must have no label.",
            70,
        )


def _repeated(evidence: Evidence) -> Iterator[Cause]:
    rows = evidence.outside.get("repeated_fraction", 0.0)
    known = evidence.known("repeated_documents_fraction")
    here = evidence.data.get("repeated_documents_fraction", 0.0)
    before = 0.0 if known is None else known[1]
    if here > before + 0.1 or (known is None and here > 0.3):
        yield Cause(
            "repeated data",
            f"{here:.0%} of the documents stand there more than once (expected: {before:.0%}).",
            "See the corpus report; switch deduplication on, and look at what the sources overlap in.",
            92,
            is_certain=known is not None,
        )
    elif rows > 0:
        yield Cause(
            "repeated data",
            "rows come again that were trained on shortly before.",
            "Count the documents of `tokens/`; a loader that stands still, or too little data, repeats itself.",
            88,
        )


def _tokenizer(evidence: Evidence) -> Iterator[Cause]:
    size, fertility = evidence.known("vocab_size"), evidence.known("bytes_per_label")
    said = []
    if size is not None and size[0] != size[1]:
        said.append(f"its vocabulary has {size[0]:,.0f} tokens instead of {size[1]:,.0f}")
    if fertility is not None and abs(fertility[0] / fertility[1] - 1) > _OTHER_BYTES:
        said.append(f"a label stands for {fertility[0]:.2f} bytes instead of {fertility[1]:.2f}")
    learned = evidence.known("learned_fraction")
    if said and not (learned is not None and abs(learned[0] - learned[1]) > 0.1):
        yield Cause(
            "tokenizer",
            f"{' and '.join(said)}: it was made from other text, or is not the one of the reference.",
            "Compare the hash in `tokenizer/report.json`, and run the tokenizer's stage again.",
            91,
            is_certain=True,
        )


def _missing(evidence: Evidence) -> Iterator[Cause]:
    known = evidence.known("tokens")
    if known is not None and known[0] < _TOO_FEW_TOKENS * known[1]:
        yield Cause(
            "data missing",
            f"{known[0]:,.0f} tokens to train on, where the reference had {known[1]:,.0f}.",
            "Compare the corpus report with the reference's: files not found, or filters that drop too much.",
            87,
            is_certain=True,
        )


def _learning_rate(evidence: Evidence) -> Iterator[Cause]:
    planned = evidence.ratio("lr", _WARMING_WINDOWS)
    early = evidence.ratio("lr", 0, _WARMING_WINDOWS)
    moved = evidence.ratio("update_ratio")
    if early is not None and early > _TIMES_TOO_LARGE and planned is not None and planned < _SAME_RATE:
        yield Cause(
            "no warm-up",
            f"the learning rate of the first steps is {early:.1f} times the reference's, and later the same.",
            "Compare warmup_fraction with the reference's.",
            83,
        )
        return
    if early is not None and planned is None and early > _TIMES_TOO_LARGE:
        yield Cause("no warm-up", f"the first steps have {early:.1f} times the learning rate expected.",
                    "Compare warmup_fraction with the reference's.", 60)  # fmt: skip
    for name, ratio in (("learning rate", planned or early), ("steps", moved)):
        if ratio is not None and not 1 / _TIMES_TOO_LARGE < ratio < _TIMES_TOO_LARGE:
            what, verb = "too high" if ratio > 1 else "too low", "is" if name == "learning rate" else "are"
            yield Cause(
                f"learning rate {what}",
                f"in size, this run's {name} {verb} {ratio:.2g} times the reference's.",
                "Compare lr and muon_lr with the reference's; `hornbook check` tells at which rate the loss blows up.",
                84 if name == "learning rate" else 75,
            )
            return
    ratio = evidence.mean("update_ratio")
    if not evidence.expected.signs and ratio is not None and not 1e-5 < ratio < 0.3:
        what = "too high" if ratio >= 0.3 else "too low"
        yield Cause(f"learning rate {what}", f"a step moves a matrix by {ratio:.2g} of its size.",
                    "Between 0.00001 and 0.3 is usual; `hornbook check` looks at it.", 70)  # fmt: skip


def _first_loss(evidence: Evidence) -> Iterator[Cause]:
    first = next((record["loss_nats"] for record in evidence.records if record.get("loss_nats") is not None), None)
    expected = evidence.expected.first
    if first is None or expected is None or evidence.expected.figure != "loss_nats":
        return
    if first > expected + 1.0 or first < 0.5 * expected:
        yield Cause(
            "first loss",
            f"it begins at {first:.2f} nats, where {expected:.2f} is expected.",
            "Above: initial weights too large, or another tokenizer than the model's. Below: labels seen in the input "
            "(`hornbook check`: no future leaks).",
            65,
        )


def _gap(evidence: Evidence) -> Iterator[Cause]:
    """Training far better than validation: learned by heart."""
    measured = [
        record["evaluation"]["validation"]["bits_per_byte"]
        for record in evidence.records
        if "bits_per_byte" in record.get("evaluation", {}).get("validation", {})
    ]
    if len(measured) >= 3 and measured[-1] > 1.03 * min(measured[:-1]):
        yield Cause(
            "learned by heart",
            f"the validation rises again, to {measured[-1]:.3f} bits per byte from {min(measured):.3f}.",
            "Train for fewer tokens, or on more text; see how often the data was gone through.",
            55,
        )


def _unrest(evidence: Evidence) -> Iterator[Cause]:
    off = evidence.outside.get("grad_norm")
    if off is not None and off > 0:
        yield Cause(
            "unstable",
            f"the gradient is {off:+.0%} larger than expected.",
            "Lower the learning rates, lengthen the warm-up, and look at the batches of the steps where it grows.",
            30,
        )


def _share_not_finite(records: Sequence[Mapping[str, Any]]) -> float:
    bad = sum(
        record["loss_nats"] is None and (record["grad_norm"] is None or not math.isfinite(record["grad_norm"]))
        for record in records
    )
    return bad / max(1, len(records))


_FINDERS = (
    _precision,
    _labels,
    _padding_and_mask,
    _repeated,
    _tokenizer,
    _missing,
    _learning_rate,
    _first_loss,
    _gap,
    _unrest,
)
