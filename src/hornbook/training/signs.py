"""Signs that tell a sound training from one that goes wrong: what its batches hold, and how far its weights move.

They are measured while the training runs and stand in metrics.jsonl with the loss. A verdict reads them there
(hornbook.planning.verdict): each kind of mistake leaves a mark of its own.
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from hornbook.batching.packing import IGNORE_INDEX, Batch
from hornbook.batching.shards import Documents

if TYPE_CHECKING:
    from hornbook.model.transformer import Transformer
    from hornbook.training.trainer import BatchSource

_STEPS_BETWEEN_RATIOS = 10
_WATCHED_MATRICES = 6
_ROWS_REMEMBERED = 1024
_ROWS_KEY = "rows_seen"
_DOCUMENTS_LOOKED_AT = 20_000


class WatchedBatches:
    """A source of batches that looks at each on its way, and at the weights before and after some steps.

    Batches and their order are those of `batches`; its state goes into the checkpoint with the hashes of the last rows,
    so that a resumed run notes the same. `step` says how many steps are made. Where labels are no tokens but classes,
    nothing is said of whether they are the next ones.
    """

    def __init__(
        self, batches: "BatchSource", model: "Transformer", step: Callable[[], int], labels_are_tokens: bool = True
    ) -> None:
        self._batches, self._model, self._step, self._labels_are_tokens = batches, model, step, labels_are_tokens
        self._notes: dict[str, float] = {}
        self._before: list[tuple[Tensor, Tensor]] = []
        self._rows: deque[int] = deque(maxlen=_ROWS_REMEMBERED)

    def next_batch(self) -> Batch:
        batch = self._batches.next_batch()
        self._notes = label_signs(batch) | {"repeated_fraction": self._repeated_fraction(batch)}
        if not self._labels_are_tokens:
            del self._notes["next_label_fraction"]
        self._before = []
        if self._step() % _STEPS_BETWEEN_RATIOS == 0:
            matrices = [parameter for parameter in self._model.parameters() if parameter.ndim == 2]
            matrices = [matrix for matrix in matrices if matrix.requires_grad]
            watched = matrices[:: max(1, len(matrices) // _WATCHED_MATRICES)]
            self._before = [(_local(matrix), _local(matrix).clone()) for matrix in watched]
        return batch

    def notes(self) -> dict[str, float]:
        """The signs of the step that was just made: called once, after it."""
        if self._before:
            ratios = [(now - before).norm() / before.norm().clamp_min(1e-12) for now, before in self._before]
            self._notes["update_ratio"] = float(torch.stack(ratios).median())
            self._before = []
        return self._notes

    def state_dict(self) -> dict[str, Any]:
        return self._batches.state_dict() | {_ROWS_KEY: list(self._rows)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._rows = deque(state.get(_ROWS_KEY, ()), maxlen=_ROWS_REMEMBERED)
        self._batches.load_state_dict({name: value for name, value in state.items() if name != _ROWS_KEY})

    def _repeated_fraction(self, batch: Batch) -> float:
        """The share of this step's rows that were there among the last thousand."""
        hashes = [crc32(row.tobytes()) for row in batch.input_ids.cpu().numpy()]
        known = set(self._rows)
        self._rows.extend(hashes)
        return sum(row in known for row in hashes) / len(hashes)


def label_signs(batch: Batch) -> dict[str, float]:
    """What the labels of a batch are like.

    labelled_fraction: of all places. next_label_fraction: of the labels, those that are the next token of their
    document: all of them, if nothing is wrong. top_label_fraction: of the labels, those that are the commonest one.
    """
    labels, ids, documents = batch.labels, batch.input_ids, batch.document_ids
    is_labelled = labels != IGNORE_INDEX
    n_labels = max(1, int(is_labelled.sum()))
    has_next = is_labelled[:, :-1] & (documents[:, 1:] == documents[:, :-1])
    is_next = has_next & (labels[:, :-1] == ids[:, 1:])
    commonest = int(torch.bincount(labels[is_labelled]).max()) if bool(is_labelled.any()) else 0
    return {
        "labelled_fraction": int(is_labelled.sum()) / labels.numel(),
        "next_label_fraction": int(is_next.sum()) / max(1, int(has_next.sum())),
        "top_label_fraction": commonest / n_labels,
    }


def census(documents: Documents, vocab_size: int) -> dict[str, float]:
    """What a set of documents is like: how many, how many tokens, bytes of a token, and the share seen before.

    Repetition is looked for among the first twenty thousand documents; learned_fraction is of their tokens.
    """
    looked_at = range(min(len(documents), _DOCUMENTS_LOOKED_AT))
    seen: set[int] = set()
    n_repeated = n_learned = n_tokens = 0
    for number in looked_at:
        tokens, mask = documents.tokens(number), documents.loss_mask(number)
        key = hash(np.asarray(tokens).tobytes())
        n_repeated += key in seen
        seen.add(key)
        n_tokens += len(tokens)
        n_learned += len(tokens) if mask is None else int(np.asarray(mask).sum())
    labels = max(1, n_learned - len(looked_at) * (n_learned == n_tokens))
    return {
        "documents": len(documents),
        "tokens": int(documents.lengths.sum()),
        "vocab_size": vocab_size,
        "bytes_per_label": float(documents.n_bytes[: len(looked_at)].sum()) / labels,
        "repeated_documents_fraction": n_repeated / max(1, len(looked_at)),
        "learned_fraction": n_learned / max(1, n_tokens),
    }


def _local(parameter: Tensor) -> Tensor:
    """The parameter's values, and of one that is spread over processes this one's share."""
    tensor = parameter.detach()
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
