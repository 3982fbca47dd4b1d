"""Answers that the model draws itself, graded, as batches for the trainer.

Everything random is hashed from (seed, stage, number of the rollout, number of the answer), and the model that draws
is the one in the checkpoint, so a run that was killed draws the same answers again. Where several steps are made with
the same answers, the batch in use is part of the state: the model that drew it is gone.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hornbook.errors import RunFailed
from hornbook.evaluation.tasks import Task
from hornbook.inference.engine import Engine
from hornbook.model.transformer import Transformer
from hornbook.objectives.answers import Answer, answer_tensors
from hornbook.objectives.log_probabilities import token_log_probabilities
from hornbook.objectives.policy import RolloutBatch, group_advantages, token_weights
from hornbook.recipe_training import ReinforceSection
from hornbook.runtime import derive_seed
from hornbook.stages.order import ShuffledOrder
from hornbook.stages.training import EVALUATION_ROWS_AT_ONCE
from hornbook.tokenizer.chat import END_OF_TURN
from hornbook.tokenizer.tokenizer import Tokenizer

_UNUSABLE_IN_A_ROW_AT_MOST = 10


class Rollouts:
    """Batches of graded answers: `answers_per_prompt` to each of the step's prompts, group after group.

    model: the one that is trained; it draws. reference: the one that it may not leave too far; frozen. A right answer
    is worth 1, a wrong one 0, and so are an empty one and one that does not end within `answer_tokens`.
    """

    def __init__(
        self,
        model: Transformer,
        reference: Transformer,
        tokenizer: Tokenizer,
        tasks: Sequence[Task],
        section: ReinforceSection,
        row_tokens: int,
        dtype: torch.dtype,
        seed: int,
    ) -> None:
        self._model, self._reference, self._tokenizer, self._tasks = model, reference, tokenizer, tasks
        self._section, self._row_tokens, self._dtype, self._seed = section, row_tokens, dtype, seed
        n_answers = section.global_batch_tokens // row_tokens
        self._prompts_per_step = n_answers // section.answers_per_prompt
        self._order = ShuffledOrder(len(tasks), derive_seed(seed, "prompts"))
        self._n_drawn, self._n_uses, self._unusable_in_a_row = 0, 0, 0
        self._held: RolloutBatch | None = None

    def next_batch(self) -> RolloutBatch:
        """New answers, or the last ones again. Raises RunFailed where no answer could be used for long."""
        if self._held is None or self._n_uses == self._section.updates_per_rollout:
            self._held, self._n_uses = self._draw(), 0
        self._n_uses += 1
        return self._held

    def _draw(self) -> RolloutBatch:
        section = self._section
        chosen = self._order.take(self._n_drawn * self._prompts_per_step, self._prompts_per_step)
        tasks = [self._tasks[number] for number in chosen for _ in range(section.answers_per_prompt)]
        seed = derive_seed(self._seed, "rollout", self._n_drawn)
        written = draw_answers(self._model, self._tokenizer, tasks, section.answer_tokens, temperature=1.0, seed=seed)
        self._n_drawn += 1

        end_of_turn = self._tokenizer.special_id(END_OF_TURN)
        is_endless = [len(ids) >= section.answer_tokens for ids in written]
        # An answer that ended is learned with its end; the engine does not tell which token that was, and <|end|> is
        # what it should be.
        answers = [
            Answer(task.prompt, ids if endless else [*ids, end_of_turn])
            for task, ids, endless in zip(tasks, written, is_endless, strict=True)
        ]
        is_empty = [not self._tokenizer.decode(ids).strip() for ids in written]
        rewards_B = torch.tensor(
            [
                float(not empty and not endless and task.is_right(self._tokenizer.decode(ids)))
                for task, ids, empty, endless in zip(tasks, written, is_empty, is_endless, strict=True)
            ]
        )
        self._watch([empty or endless for empty, endless in zip(is_empty, is_endless, strict=True)])
        group_passed_N = rewards_B.view(-1, section.answers_per_prompt).amax(1)
        tensors = answer_tensors(answers, self._row_tokens, self._tokenizer.pad_id)
        batch = RolloutBatch(
            **tensors,
            weights=token_weights(tensors["labels"], section.average),
            advantages=group_advantages(rewards_B, section.answers_per_prompt),
            rewards=rewards_B,
            group_passed=group_passed_N.repeat_interleave(section.answers_per_prompt),
            is_empty=torch.tensor(is_empty).float(),
            is_endless=torch.tensor(is_endless).float(),
            reference_log_probabilities=torch.zeros(tensors["labels"].shape),
        )
        given = {"reference_log_probabilities": self._log_probabilities(self._reference, batch)}
        if section.updates_per_rollout > 1:
            given["old_log_probabilities"] = self._log_probabilities(self._model, batch)
        return RolloutBatch(**(_tensors_of(batch) | given))

    @torch.no_grad()
    def _log_probabilities(self, model: Transformer, batch: RolloutBatch) -> Tensor:
        device = model.head_weight.device
        starts = range(0, batch.n_rows, EVALUATION_ROWS_AT_ONCE)
        with torch.autocast(device.type, torch.bfloat16, enabled=self._dtype == torch.bfloat16):
            parts = [batch.rows(start, start + EVALUATION_ROWS_AT_ONCE).to(device) for start in starts]
            return torch.cat([token_log_probabilities(model, part).float().cpu() for part in parts])

    def _watch(self, is_unusable: Sequence[bool]) -> None:
        self._unusable_in_a_row = self._unusable_in_a_row + 1 if all(is_unusable) else 0
        if self._unusable_in_a_row >= _UNUSABLE_IN_A_ROW_AT_MOST:
            raise RunFailed(
                f"Every answer of the last {self._unusable_in_a_row} rollouts was empty or did not end within "
                f"{self._section.answer_tokens} tokens, so there is nothing to learn from. Fine-tune the model on "
                "conversations first, raise reinforce.answer_tokens, or lower reinforce.lr."
            )

    def state_dict(self) -> dict[str, Any]:
        is_needed = self._held is not None and self._n_uses < self._section.updates_per_rollout
        held = {name: tensor.tolist() for name, tensor in _tensors_of(self._held).items()} if is_needed else None
        return {
            "drawn": self._n_drawn,
            "uses": self._n_uses,
            "unusable_in_a_row": self._unusable_in_a_row,
            "held": held,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._n_drawn, self._n_uses = state["drawn"], state["uses"]
        self._unusable_in_a_row = state["unusable_in_a_row"]
        held = state["held"]
        self._held = None if held is None else RolloutBatch(**{name: _tensor(held[name], name) for name in held})


def draw_answers(
    model: Transformer,
    tokenizer: Tokenizer,
    tasks: Sequence[Task],
    answer_tokens: int,
    temperature: float,
    seed: int,
) -> list[list[int]]:
    """The model's answer to each task, in tokens, without the one that ended it. It writes in its own type."""
    with torch.autocast(model.head_weight.device.type, enabled=False):
        return Engine(model, tokenizer).generate(
            [task.prompt for task in tasks],
            answer_tokens,
            temperature,
            seed=seed,
            stop_ids=tasks[0].stop_ids,
        )


def _tensors_of(batch: RolloutBatch | None) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in vars(batch).items() if tensor is not None}


def _tensor(values: Any, name: str) -> Tensor:
    is_index = name in ("input_ids", "labels", "position_ids", "document_ids")
    return torch.tensor(values, dtype=torch.int64 if is_index else torch.float32)
