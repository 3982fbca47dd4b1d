"""Rows that hold one answer each: prompt, answer, padding. Only the answer has labels.

Shapes: B rows, T tokens of a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hornbook.batching.packing import IGNORE_INDEX, Batch


@dataclass(frozen=True)
class Answer:
    """What was asked and what was answered, in tokens; a learned answer ends with the token that ends a turn."""

    prompt: Sequence[int]
    ids: Sequence[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.ids)


def answer_tensors(answers: Sequence[Answer], row_tokens: int, pad_id: int) -> dict[str, Tensor]:
    """The four tensors of a `Batch` by their names, (B,T): one row for each answer, in order.

    Raises ValueError where an answer has no prompt, or does not fit with it into a row: who makes rows leaves such
    answers out.
    """
    shape = (len(answers), row_tokens)
    input_ids_BT, labels_BT = torch.full(shape, pad_id), torch.full(shape, IGNORE_INDEX)
    position_ids_BT = torch.arange(row_tokens).repeat(len(answers), 1)
    document_ids_BT = torch.zeros(shape, dtype=torch.int64)
    for row, answer in enumerate(answers):
        n_prompt, n_tokens = len(answer.prompt), len(answer)
        if not 0 < n_prompt <= n_tokens <= row_tokens:
            raise ValueError(
                f"a prompt of {n_prompt} and an answer of {len(answer.ids)} tokens in rows of {row_tokens}"
            )
        input_ids_BT[row, :n_tokens] = torch.tensor([*answer.prompt, *answer.ids])
        if answer.ids:
            labels_BT[row, n_prompt - 1 : n_tokens - 1] = torch.tensor(list(answer.ids))
        # Padding is one more document, as in packed rows.
        document_ids_BT[row, n_tokens:] = 1
        position_ids_BT[row, n_tokens:] = torch.arange(row_tokens - n_tokens)
    return {
        "input_ids": input_ids_BT,
        "labels": labels_BT,
        "position_ids": position_ids_BT,
        "document_ids": document_ids_BT,
    }


def answer_batch(answers: Sequence[Answer], row_tokens: int, pad_id: int) -> Batch:
    """One row for each answer; errors as in `answer_tensors`."""
    return Batch(**answer_tensors(answers, row_tokens, pad_id))
