"""Whether a training went as expected, and if not, why, most likely: read from its metrics alone.

A training is outside where a figure lies outside its band in two windows in a row. Which figures do, and on which side,
tells what is wrong: each kind of mistake leaves a mark of its own (causes.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hornbook.planning.causes import Cause, Evidence, likely_causes
from hornbook.planning.curves import Band, Record, Window, finished_windows, windows
from hornbook.planning.expected import Expectation

_IN_A_ROW = 2
_TRUSTED_ALONE = ("next_label_fraction", "repeated_fraction", "not_finite")
"""Signs that do not wander: once outside is enough."""


@dataclass(frozen=True)
class Outside:
    """A figure that left its band: by how much of its mean, above 0 where it is too high, and since which step."""

    figure: str
    since_step: int
    off_by: float


@dataclass(frozen=True)
class Verdict:
    """What is to be said of a training. share_done: of its tokens, when this was said."""

    is_within: bool
    expected_from: str
    share_done: float
    last: float | None
    last_expected: tuple[float, float, float] | None
    outside: tuple[Outside, ...]
    causes: tuple[Cause, ...]

    @property
    def sentence(self) -> str:
        """All of it in a sentence or two."""
        if self.last is None or self.last_expected is None:
            return "Nothing can be said yet: no tenth of the training is over."
        low, _, high = self.last_expected
        band = f"{self.last:.3f}, where {low:.3f} to {high:.3f} is expected (from {self.expected_from})"
        if self.is_within:
            return f"As expected: {band}."
        first = min(self.outside, key=lambda outside: outside.since_step)
        figures = ", ".join(
            f"{one.figure} by {one.off_by:+.0%}" if abs(one.off_by) < 100 else one.figure for one in self.outside
        )
        return f"Not as expected since step {first.since_step:,} ({figures}). It is now at {band}."

    def as_json(self) -> dict[str, Any]:
        """For `stage.json` and `summary.json`."""
        return asdict(self) | {"sentence": self.sentence}


def judge(records: Sequence[Record], expected: Expectation, data: Mapping[str, float] | None = None) -> Verdict:
    """Compare what was measured so far with what was expected.

    data: a census of the training data (hornbook.training.signs), for what metrics do not show.
    """
    n_windows = finished_windows(records, expected.total_tokens)
    bands = {expected.figure: expected.curve} | dict(expected.signs)
    measured = {name: windows(records, name, expected.total_tokens)[:n_windows] for name in bands}
    outside = [
        found for name, band in bands.items() if (found := _outside(name, measured[name], band, records, expected))
    ]
    evidence = Evidence(
        records=records,
        expected=expected,
        measured=measured,
        outside={one.figure: one.off_by for one in outside},
        data=data or {},
    )
    causes = likely_causes(evidence)
    told_by_data = [cause for cause in causes if cause.is_certain]
    is_within = not outside and not told_by_data
    curve = measured[expected.figure]
    last = next((value for value in reversed(curve) if value is not None), None)
    place = len(curve) - 1
    return Verdict(
        is_within=is_within,
        expected_from=expected.source,
        share_done=records[-1]["tokens"] / expected.total_tokens if records else 0.0,
        last=last,
        last_expected=None
        if last is None
        else (expected.curve.low[place], expected.curve.mean[place], expected.curve.high[place]),
        outside=tuple(outside or [Outside("data", 1, 0.0) for _ in told_by_data[:1]]),
        causes=() if is_within else tuple(causes),
    )


def _outside(
    name: str, values: Sequence[Window], band: Band, records: Sequence[Record], expected: Expectation
) -> Outside | None:
    """Where the figure left its band for long enough, if it did."""
    needed = 1 if name in _TRUSTED_ALONE else _IN_A_ROW
    run: list[int] = []
    for place, value in enumerate(values):
        is_out = value is not None and not band.low[place] <= value <= band.high[place]
        run = [*run, place] if is_out else []
        if len(run) == needed:
            places = [
                place
                for place in range(run[0], len(values))
                if (measured := values[place]) is not None and not band.low[place] <= measured <= band.high[place]
            ]
            worst = max(places, key=lambda place: abs((values[place] or 0.0) - band.mean[place]))
            scale = abs(band.mean[worst]) or 1.0
            begins = expected.total_tokens * run[0] / len(band.mean)
            step = next((record["step"] for record in records if record["tokens"] > begins), 1)
            return Outside(name, step, ((values[worst] or 0.0) - band.mean[worst]) / scale)
    return None


class Watch:
    """Judges a training while it runs: called with each step's line, it returns what is newly to be warned of."""

    def __init__(self, expected: Expectation, data: Mapping[str, float], before: Sequence[Record] = ()) -> None:
        self._expected, self._data = expected, data
        self._records: list[Record] = list(before)
        self._judged = finished_windows(self._records, expected.total_tokens)
        self._told: set[str] = set()

    def __call__(self, record: Record) -> list[str]:
        while self._records and self._records[-1]["step"] >= record["step"]:
            self._records.pop()  # the training went back
        self._records.append(record)
        n_windows = finished_windows(self._records, self._expected.total_tokens)
        if n_windows == self._judged:
            return []
        self._judged = n_windows
        verdict = judge(self._records, self._expected, self._data)
        new = [one.figure for one in verdict.outside if one.figure not in self._told]
        if verdict.is_within or not new:
            return []
        self._told.update(new)
        causes = [f"  perhaps {cause.name}: {cause.because} {cause.check}" for cause in verdict.causes[:2]]
        return [verdict.sentence, *causes]
