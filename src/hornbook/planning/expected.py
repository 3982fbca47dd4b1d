"""What a training should look like, before it runs: a band for its curve, from the best that is known beforehand.

In this order: the reference of the recipe (`NAME.expected.json` beside it: several seeds, recorded with `hornbook
reference`); the law fitted to its data (`NAME.law.json`, by `hornbook scale`); and, where neither is there, what holds
for every training of its kind, with a wide band:

- pretraining begins near ln V nats, guessing among V tokens, and falls as Chinchilla's law says of text from the web
  (Hoffmann et al., arXiv 2203.15556, table A3), scaled to the bytes of a token;
- fine-tuning begins at the base model's own loss on the same tokens and does not rise above it;
- preference (DPO) begins at ln 2, for the model is still its own reference, and falls;
- reinforcement is followed by its reward, which should not fall below where it began.

Curves are in tokens, never in seconds, and so hold on every machine.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hornbook.errors import UserError
from hornbook.model.config import ModelConfig
from hornbook.planning.curves import N_WINDOWS, TOLERANCES, Band, Record, band_of, windows
from hornbook.planning.law import Approach, Law
from hornbook.recipe_training import TrainingSection
from hornbook.run_directory import atomic_write, read_json, write_json
from hornbook.training.curve import ExpectedCurve

REFERENCE_FILE, LAW_FILE = "expected.json", "law.json"
_FALLS_WITHIN = 0.02
"""The share of a training in which the loss falls from its first value towards the law's curve, about."""
_CHINCHILLA = Law(1.69, 406.4, 410.7, 0.34, 0.28)
_BYTES_PER_CHINCHILLA_TOKEN = 4.4
_SMALLEST_MODELS_END_AT = 0.5
"""Of the first loss, at most, whatever the size: a rough figure."""
_NATS_AROUND_FIRST = 0.5
WATCHED_FIGURE = {"reinforce": "reward"}
"""The figure that a stage is followed by, where that is not its loss."""
_TOLD_BY_ANSWERS = ("labelled_fraction", "top_label_fraction")
"""Figures of the labels: in reinforcement these are the model's own answers, which may grow longer or shorter."""


@dataclass(frozen=True)
class Expectation:
    """What a training should look like.

    source: where that comes from, in words. figure: what the curve is of. curve: its band. signs: bands of other
    figures, by name, known from a reference alone. data: what the reference's training data was like.
    total_tokens: of the whole training. first: the value that the very first step should have, about. is_rough: whether
    it is only known within which bounds the curve should lie, from neither a reference nor a law.
    """

    source: str
    figure: str
    curve: Band
    total_tokens: int
    first: float | None = None
    signs: Mapping[str, Band] = field(default_factory=dict)
    data: Mapping[str, float] = field(default_factory=dict)
    is_rough: bool = False

    @property
    def final_loss_nats(self) -> float | None:
        """The loss that is predicted of the end; None where there is nothing to predict it from."""
        return None if self.is_rough or self.figure != "loss_nats" else self.curve.mean[-1]

    def drawn(self) -> ExpectedCurve:
        """The curve as it is drawn: each window's values at its middle."""
        places = [self.total_tokens * (number + 0.5) / N_WINDOWS for number in range(N_WINDOWS)]
        return ExpectedCurve(places, self.curve.low, self.curve.mean, self.curve.high)


@dataclass(frozen=True)
class Beginning:
    """What is known of a training when it begins.

    stage: its name. n_parameters: those that a law counts, since tokens are multiplied with them. settings: what its
    curve depends on, as the reference has it. first_loss: the model's own loss on the data, where the stage goes on
    from a model. bytes_per_token: of its data, where it is known.
    """

    stage: str
    total_tokens: int
    vocab_size: int
    n_parameters: int
    settings: Mapping[str, Any]
    first_loss: float | None = None
    bytes_per_token: float | None = None


def compared_settings(config: ModelConfig, section: TrainingSection) -> dict[str, int]:
    """The settings that make two trainings comparable: shape, rows, batch and tokens. Others may be what went wrong."""
    return {
        "n_layers": config.n_layers,
        "d_model": config.d_model,
        "d_ff": config.d_ff,
        "row_tokens": section.row_tokens or config.max_seq_len,
        "global_batch_tokens": section.global_batch_tokens,
        "tokens": section.tokens,
    }


def expectation(beginning: Beginning, reference: Mapping[str, Any] | None, law: Law | None) -> Expectation:
    """The best that is known of how this training should go."""
    recorded = None if reference is None else recorded_of(reference, beginning.stage, beginning.settings)
    if reference is not None and recorded is not None:
        bands = {
            name: Band(*(tuple(band[key]) for key in ("mean", "low", "high")))
            for name, band in recorded["bands"].items()
            if beginning.stage != "reinforce" or name not in _TOLD_BY_ANSWERS
        }
        figure = _watched_figure(beginning.stage)
        curve = bands.pop(figure)
        source = f"the recipe's reference of {len(reference['seeds'])} seeds"
        return Expectation(source, figure, curve, beginning.total_tokens, signs=bands, data=recorded["data"])
    if beginning.stage == "preference":
        return _from_ln_2(beginning)
    if beginning.stage == "reinforce":
        return _rewards(beginning)
    if beginning.stage == "classify":
        return _from_guessing(beginning)
    if beginning.first_loss is not None:
        return _from_base(beginning)
    return _from_law(beginning, law)


def recorded_of(reference: Mapping[str, Any], stage: str, settings: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a reference has of a stage; None where it has nothing of a training with these settings, or not its curve,
    which runs that ended early do not give."""
    recorded = reference["stages"].get(stage)
    is_of_it = recorded is not None and recorded["settings"] == settings and _watched_figure(stage) in recorded["bands"]
    return recorded if is_of_it else None


def record_of(runs: Mapping[int, Sequence[Record]], beginning: Beginning, data: Mapping[str, float]) -> dict[str, Any]:
    """A stage's part of a reference: the bands of all figures over the runs of several seeds."""
    bands = {}
    for figure, tolerance in TOLERANCES.items():
        band = band_of([windows(records, figure, beginning.total_tokens) for records in runs.values()], tolerance)
        if band is not None:
            bands[figure] = {key: [round(value, 6) for value in values] for key, values in asdict(band).items()}
    return {
        "tokens": [round(beginning.total_tokens * (n + 1) / N_WINDOWS) for n in range(N_WINDOWS)],
        "settings": dict(beginning.settings),
        "data": dict(data),
        "bands": bands,
    }


def bring_along(recipe_path: Path, run: Path) -> None:
    """Copy what is expected of a recipe from beside it into a run's folder, so that the run has all it needs."""
    for name in (REFERENCE_FILE, LAW_FILE):
        source, there = recipe_path.with_suffix(f".{name}"), run / name
        if source.is_file() and (not there.is_file() or source.read_bytes() != there.read_bytes()):
            with suppress(OSError):  # a folder that cannot be written is told of when the run begins
                atomic_write(there, source.read_bytes())


def beside(recipe_path: Path) -> tuple[dict[str, Any] | None, Law | None]:
    """The reference and the law that stand beside a recipe, None for what is not there."""
    reference, law = (recipe_path.with_suffix(f".{name}") for name in (REFERENCE_FILE, LAW_FILE))
    return (
        _reference(reference) if reference.is_file() else None,
        _law(law) if law.is_file() else None,
    )


def read_reference(run: Path) -> dict[str, Any] | None:
    """The reference in a run's folder, if there is one."""
    path = run / REFERENCE_FILE
    return _reference(path) if path.is_file() else None


def read_law(run: Path) -> Law | None:
    """The law in a run's folder, if there is one."""
    path = run / LAW_FILE
    return _law(path) if path.is_file() else None


def _reference(path: Path) -> dict[str, Any]:
    found = read_json(path)
    try:
        stages = found["stages"].values()
        is_whole = bool(found["seeds"]) and all({"settings", "bands", "data"} <= stage.keys() for stage in stages)
    except (AttributeError, KeyError, TypeError):
        is_whole = False
    if not is_whole:
        raise UserError(f"{path}: is no reference that `hornbook reference` wrote. Remove it, or record it again.")
    return dict(found)


def _law(path: Path) -> Law:
    try:
        numbers = dict(read_json(path)["law"])
        approach = numbers.pop("approach", None)
        numbers.pop("above", None)  # earlier versions told in it how trainings come down to the law
        if approach is None:
            return Law(**numbers)
        return Law(**numbers, approach=Approach(Law(**approach["under_way"]), approach["above"], approach["passed"]))
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path}: is no law that `hornbook scale` wrote. Remove it, or fit it again.") from None


def write_reference(path: Path, reference: Mapping[str, Any]) -> None:
    """Write a reference where `bring_along` finds it."""
    write_json(path, dict(reference))


def _watched_figure(stage: str) -> str:
    return WATCHED_FIGURE.get(stage, "loss_nats")


def _from_law(beginning: Beginning, law: Law | None) -> Expectation:
    first = math.log(beginning.vocab_size)
    scale = 1.0
    if law is None and beginning.bytes_per_token is not None:
        scale = min(1.5, beginning.bytes_per_token / _BYTES_PER_CHINCHILLA_TOKEN)
    mean = []
    for number in range(N_WINDOWS):
        tokens = beginning.total_tokens * (number + 0.5) / N_WINDOWS
        loss = scale * (law or _CHINCHILLA).loss(beginning.n_parameters, tokens)
        if law is None:
            # Made of large models, that law lies above guessing for the smallest ones, which learn all the same.
            loss = min(loss, _SMALLEST_MODELS_END_AT * first)
        falls = math.exp(-(number + 0.5) / N_WINDOWS / _FALLS_WITHIN)
        mean.append(min(first, loss + (first - loss) * falls))
    predicted = None if law is None else law.curve(beginning.n_parameters, beginning.total_tokens)
    if predicted is not None:
        mean = [min(first, value) for value in predicted]
        low, high = [0.9 * value for value in mean], [min(first + _NATS_AROUND_FIRST, 1.1 * value) for value in mean]
        return Expectation("the law fitted to this data", "loss_nats", _band(mean, low, high),
                           beginning.total_tokens, first)  # fmt: skip
    if law is not None:
        # The law is of finished trainings; on the way, with a high learning rate, the loss lies above it.
        low, high = [0.9 * value for value in mean], [min(first + _NATS_AROUND_FIRST, 1.3 * value) for value in mean]
        return Expectation("the law fitted to this data", "loss_nats", _band(mean, low, high),
                           beginning.total_tokens, first)  # fmt: skip
    low = [0.15 * value for value in mean]
    high = [min(first + _NATS_AROUND_FIRST, 1.5 * value + 0.5) for value in mean]
    source = "what holds for text from the web, roughly: there is no reference and no fitted law"
    return Expectation(source, "loss_nats", _band(mean, low, high), beginning.total_tokens, first, is_rough=True)


def _from_base(beginning: Beginning) -> Expectation:
    base = beginning.first_loss or 0.0
    mean = [base * (0.9 - 0.3 * number / N_WINDOWS) for number in range(N_WINDOWS)]
    low, high = [0.02 * base] * N_WINDOWS, [1.1 * base + 0.1] * N_WINDOWS
    source = "the base model's own loss on the same tokens, which should not be exceeded: there is no reference"
    return Expectation(source, "loss_nats", _band(mean, low, high), beginning.total_tokens, base, is_rough=True)


def _from_guessing(beginning: Beginning) -> Expectation:
    first = beginning.first_loss or 0.0  # here the loss of one who guesses among the classes
    mean = [first * (1 - 0.5 * (number + 1) / N_WINDOWS) for number in range(N_WINDOWS)]
    low, high = [0.0] * N_WINDOWS, [1.1 * first + 0.1] * N_WINDOWS
    source = "guessing among the classes, which a classifier should be better than: there is no reference"
    return Expectation(source, "loss_nats", _band(mean, low, high), beginning.total_tokens, first, is_rough=True)


def _from_ln_2(beginning: Beginning) -> Expectation:
    first = math.log(2)
    mean = [first * (1 - 0.5 * (number + 1) / N_WINDOWS) for number in range(N_WINDOWS)]
    low, high = [0.0] * N_WINDOWS, [first + 0.1] * N_WINDOWS
    source = "ln 2, where the model still is its own reference: there is no recorded one"
    return Expectation(source, "loss_nats", _band(mean, low, high), beginning.total_tokens, first, is_rough=True)


def _rewards(beginning: Beginning) -> Expectation:
    first = beginning.first_loss or 0.0  # here the share of right answers at the start
    mean = [first + (1 - first) * 0.3 * (number + 1) / N_WINDOWS for number in range(N_WINDOWS)]
    low, high = [first - 0.15] * N_WINDOWS, [1.0] * N_WINDOWS
    source = "the reward at the start, below which it should not fall: there is no reference"
    return Expectation(source, "reward", _band(mean, low, high), beginning.total_tokens, first, is_rough=True)


def _band(mean: list[float], low: list[float], high: list[float]) -> Band:
    return Band(tuple(mean), tuple(low), tuple(high))
