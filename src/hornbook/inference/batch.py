"""Continuous batching: requests share the model's every step, and join and leave the batch at any of them.

A step reads the prompts of the newcomers, one new token of everybody else, and draws the next token of each. So
nobody waits for the longest of a batch to end (Yu et al., Orca, OSDI 2022). What a request gets does not
depend on its company: attention sees a row's own text alone, and each request has random numbers of its own.

Shapes: B rows, T tokens of a row, D d_model, V vocabulary.
"""

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from hornbook.errors import UserError
from hornbook.inference.cache import RowCache, shared_tokens
from hornbook.inference.sampling import Sampling
from hornbook.model.transformer import Transformer
from hornbook.runtime import torch_generator

FinishReason = Literal["stop", "length"]


@dataclass(eq=False)
class Request:
    """A text to be continued, and how.

    Attributes:
        prompt: at least one token.
        max_new_tokens: tokens to write, at most and at least one.
        stop_ids: tokens that end the text; they are not part of it.
        seed: what its random numbers are made from.
        n_alternatives: how many of the likeliest tokens are reported at each place; None: no probabilities.
        is_cancelled: set it, from any thread, and the request leaves at the next step without a word.
    """

    prompt: Sequence[int]
    max_new_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    stop_ids: Collection[int] = ()
    seed: tuple[int | str, ...] = (0,)
    n_alternatives: int | None = None
    is_cancelled: bool = False
    tokens: list[int] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if not self.prompt:
            raise UserError("the prompt is empty: the model needs at least one token to continue")
        is_drawn = self.sampling.temperature > 0
        generator = torch_generator(*self.seed)
        self._uniforms = torch.rand(self.max_new_tokens, generator=generator).tolist() if is_drawn else []

    @property
    def next_uniform(self) -> float:
        """The random number, in [0,1), that decides the next token; greedy requests need none."""
        return self._uniforms[len(self.tokens)] if self._uniforms else 0.0


@dataclass(frozen=True)
class Produced:
    """What one step made of one request.

    token: the next token; None where a token of `stop_ids` ended the text. log_probability: the model's own, in
    nats, before temperature and the like. alternatives: the likeliest tokens with theirs, best first.
    finish: why the request has ended, or None.
    """

    request: Request
    token: int | None
    log_probability: float | None
    alternatives: list[tuple[int, float]]
    finish: FinishReason | None


class ContinuousBatch:
    """Requests under way, and those that wait for a row.

    n_rows: requests at a time. capacity_tokens: prompt and new tokens of one request, at most the model's
    context; a text that reaches it ends there.
    """

    def __init__(self, model: Transformer, n_rows: int, capacity_tokens: int) -> None:
        weight = model.model.embed_tokens.weight
        self._model, self._device = model, weight.device
        self._capacity_tokens = min(capacity_tokens, model.config.max_seq_len)
        self._cache = RowCache(model.config, n_rows, self._capacity_tokens, weight.dtype, weight.device)
        self.n_rows = n_rows
        self._waiting: deque[Request] = deque()
        self._active: list[Request] = []
        self.tokens_read, self.tokens_shared = 0, 0

    def submit(self, request: Request) -> None:
        """Let a request join as soon as there is a row. Raises UserError where its prompt leaves no room."""
        if len(request.prompt) >= self._capacity_tokens:
            raise UserError(
                f"the prompt has {len(request.prompt)} tokens, but the context holds {self._capacity_tokens} "
                "with at least one new: shorten it"
            )
        self._waiting.append(request)

    @property
    def n_active(self) -> int:
        """Requests that have a row."""
        return len(self._active)

    @property
    def n_waiting(self) -> int:
        """Requests that have none yet."""
        return len(self._waiting)

    @torch.inference_mode()
    def step(self) -> list[Produced]:
        """One token more for every request under way, after newcomers have joined; nothing where there are none."""
        self._drop_cancelled()
        hidden = [self._read([[request.tokens[-1]] for request in self._active])] if self._active else []
        hidden += self._admit()
        if not hidden:
            return []
        logits_BV = self._model.logits(torch.cat(hidden)).float()
        tokens = self._choose(logits_BV)
        produced = [self._produced(row, token, logits_BV[row]) for row, token in enumerate(tokens)]
        for row in reversed(range(len(produced))):
            if produced[row].finish is not None:
                self._leave(row)
        return produced

    def _admit(self) -> list[Tensor]:
        """Newcomers join and their prompts are read; the vectors (B,D) at the ends, group by group.

        Who begins like somebody in the group waits for the next one, and takes over what they share.
        """
        n_free = self._cache.n_rows - len(self._active)
        newcomers = [self._waiting.popleft() for _ in range(min(n_free, len(self._waiting)))]
        hidden = []
        while newcomers:
            group: list[Request] = []
            later: list[Request] = []
            for request in newcomers:
                known = max(shared_tokens(request.prompt, text) for text in self._cache.texts)
                among = max((shared_tokens(request.prompt, other.prompt) for other in group), default=0)
                (later if among > max(known, len(request.prompt) // 4) else group).append(request)
            new_tokens = [list(request.prompt[self._cache.join(request.prompt) :]) for request in group]
            first_row = len(self._active)
            self._active += group
            self.tokens_shared += sum(len(request.prompt) for request in group) - sum(map(len, new_tokens))
            hidden.append(self._read(new_tokens, first_row))
            newcomers = later
        return hidden

    def _read(self, new_tokens: list[list[int]], first_row: int = 0) -> Tensor:
        """The vectors (B,D) at the last of each row's new tokens."""
        longest = max(map(len, new_tokens))
        self.tokens_read += sum(map(len, new_tokens))
        padded = [tokens + [0] * (longest - len(tokens)) for tokens in new_tokens]
        input_ids_BT = torch.tensor(padded, device=self._device)
        hidden_BTD = self._model(input_ids_BT, cache=self._cache.view(first_row, new_tokens))
        lasts_B = torch.tensor([len(tokens) - 1 for tokens in new_tokens], device=self._device)
        return hidden_BTD[torch.arange(len(lasts_B), device=self._device), lasts_B]

    def _choose(self, logits_BV: Tensor) -> list[int]:
        tokens = [0] * len(self._active)
        rows_of: dict[Sampling, list[int]] = {}
        for row, request in enumerate(self._active):
            rows_of.setdefault(request.sampling, []).append(row)
        for sampling, rows in rows_of.items():
            requests = [self._active[row] for row in rows]
            logits = logits_BV if len(rows) == len(tokens) else logits_BV[rows]
            seen = [[*request.prompt, *request.tokens] for request in requests] if sampling.looks_back else []
            uniform_B = torch.tensor([request.next_uniform for request in requests], dtype=torch.float64)
            chosen = sampling.choose(sampling.penalise(logits, seen), uniform_B.to(self._device))
            for row, token in zip(rows, chosen.tolist(), strict=True):
                tokens[row] = token
        return tokens

    def _produced(self, row: int, token: int, logits_V: Tensor) -> Produced:
        request = self._active[row]
        if token in request.stop_ids:
            return Produced(request, None, None, [], "stop")
        request.tokens.append(token)
        n_total = len(request.prompt) + len(request.tokens)
        is_full = len(request.tokens) >= request.max_new_tokens or n_total >= self._capacity_tokens
        finish: FinishReason | None = "length" if is_full else None
        if request.n_alternatives is None:
            return Produced(request, token, None, [], finish)
        log_probabilities_V = logits_V.log_softmax(-1)
        best = log_probabilities_V.topk(min(request.n_alternatives, len(log_probabilities_V)))
        alternatives = list(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        return Produced(request, token, log_probabilities_V[token].item(), alternatives, finish)

    def _drop_cancelled(self) -> None:
        self._waiting = deque(request for request in self._waiting if not request.is_cancelled)
        for row in reversed(range(len(self._active))):
            if self._active[row].is_cancelled:
                self._leave(row)

    def _leave(self, row: int) -> None:
        self._cache.leave(row)
        last = self._active.pop()
        if row < len(self._active):
            self._active[row] = last
