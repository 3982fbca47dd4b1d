"""Continuous batching: requests share the model's every step, and join and leave the batch at any of them.

A step reads the prompts of the newcomers, one new token of everybody else, and draws the next token of each. So
nobody waits for the longest of a batch to end (Yu et al., Orca, OSDI 2022). What a request gets does not
depend on its company: attention sees a row's own text alone, and each request has random numbers of its own. (In
bfloat16 up to rounding: one token is read by other operations than several.)
While few are under way, a step may also read drafts of what comes next, and then writes several tokens (drafts.py).

Shapes: B rows, T tokens of a row, N places whose next token is chosen, D d_model, V vocabulary.
"""

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from hornbook.errors import UserError
from hornbook.inference.cache import RowCache, shared_tokens
from hornbook.inference.drafts import Drafts
from hornbook.inference.sampling import Sampling
from hornbook.model.transformer import Transformer
from hornbook.runtime import torch_generator

FinishReason = Literal["stop", "length"]

_MOST_ROWS_WITH_DRAFTS = 4
"""Beyond it, reading drafts costs more arithmetic than it saves reading of weights."""


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
        n_drawn = 0 if self.sampling.is_greedy else self.max_new_tokens
        self._uniforms = torch.rand(n_drawn, generator=torch_generator(*self.seed)).tolist()
        self._drafts = Drafts()

    def uniform(self, place: int) -> float:
        """The random number, in [0,1), that decides new token number `place`; greedy requests need none."""
        return self._uniforms[place] if self._uniforms else 0.0

    def learn(self, n_drafted: int, n_right: int) -> None:
        """Count how a draft went."""
        self._drafts.learn(n_drafted, n_right)

    def draft(self, room: int) -> list[int]:
        """A guess of what comes next, at most `room` tokens and less than is still to be written."""
        room = min(room, self.max_new_tokens - len(self.tokens) - 1)
        return self._drafts.next([*self.prompt, *self.tokens], room) if room > 0 else []


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
    context; a text that reaches it ends there. has_drafts: whether steps read drafts where that may pay.
    """

    def __init__(self, model: Transformer, n_rows: int, capacity_tokens: int, has_drafts: bool = False) -> None:
        weight = model.model.embed_tokens.weight
        self._model, self._device = model, weight.device
        self._capacity_tokens = min(capacity_tokens, model.config.max_seq_len)
        self._cache = RowCache(model.config, n_rows, self._capacity_tokens, weight.dtype, weight.device)
        self.n_rows, self._has_drafts = n_rows, has_drafts
        self._waiting: deque[Request] = deque()
        self._active: list[Request] = []
        self.tokens_read, self.tokens_shared, self.n_steps = 0, 0, 0

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
        """One token more, or several, for every request under way, after newcomers have joined; nothing without any."""
        self._drop_cancelled()
        drafts = [self._draft(request) for request in self._active]
        new_tokens = [[request.tokens[-1], *draft] for request, draft in zip(self._active, drafts, strict=True)]
        hidden = [self._read(new_tokens, [len(tokens) for tokens in new_tokens])] if self._active else []
        hidden += self._admit()
        if not hidden:
            return []
        self.n_steps += 1
        drafts += [[] for _ in range(len(self._active) - len(drafts))]
        logits_NV = self._model.logits(torch.cat(hidden)).float()
        chosen = iter(zip(self._choose(logits_NV, drafts), logits_NV, strict=True))
        produced: list[Produced] = []
        ended: list[int] = []
        for row, (request, draft) in enumerate(zip(self._active, drafts, strict=True)):
            of_row = self._keep(request, draft, [next(chosen) for _ in range(len(draft) + 1)])
            self._cache.shorten(row, len(draft) + 1 - len(of_row))
            produced += of_row
            if of_row[-1].finish is not None:
                ended.append(row)
        for row in reversed(ended):
            self._leave(row)
        return produced

    def _draft(self, request: Request) -> list[int]:
        if not self._has_drafts or len(self._active) > _MOST_ROWS_WITH_DRAFTS:
            return []
        return request.draft(self._capacity_tokens - len(request.prompt) - len(request.tokens) - 1)

    def _keep(self, request: Request, draft: list[int], chosen: list[tuple[int, Tensor]]) -> list[Produced]:
        """What was chosen at each place, as far as the draft before it was right."""
        produced: list[Produced] = []
        for (token, logits_V), drafted in zip(chosen, [*draft, None], strict=True):
            produced.append(self._produced(request, token, logits_V))
            if produced[-1].finish is not None or token != drafted:
                break
        request.learn(len(draft), len(produced) - 1)
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
            hidden.append(self._read(new_tokens, [1] * len(group), first_row))
            newcomers = later
        return hidden

    def _read(self, new_tokens: list[list[int]], n_wanted: list[int], first_row: int = 0) -> Tensor:
        """The vectors (N,D) at the last `n_wanted` new tokens of each row, row after row."""
        longest = max(map(len, new_tokens))
        self.tokens_read += sum(map(len, new_tokens))
        padded = [tokens + [0] * (longest - len(tokens)) for tokens in new_tokens]
        input_ids_BT = torch.tensor(padded, device=self._device)
        hidden_BTD = self._model(input_ids_BT, cache=self._cache.view(first_row, new_tokens))
        if longest == 1:
            return hidden_BTD[:, 0]
        places = [
            (row, len(tokens) - back)
            for row, (tokens, n) in enumerate(zip(new_tokens, n_wanted, strict=True))
            for back in range(n, 0, -1)
        ]
        rows_N, columns_N = torch.tensor(places, device=self._device).T
        return hidden_BTD[rows_N, columns_N]

    def _choose(self, logits_NV: Tensor, drafts: list[list[int]]) -> list[int]:
        """The next token at every place: after each row's text, and after each token of its draft."""
        places = [
            (request, draft[:n_read])
            for request, draft in zip(self._active, drafts, strict=True)
            for n_read in range(len(draft) + 1)
        ]
        tokens = [0] * len(places)
        places_of: dict[Sampling, list[int]] = {}
        for number, (request, _) in enumerate(places):
            places_of.setdefault(request.sampling, []).append(number)
        for sampling, numbers in places_of.items():
            wanted = [places[number] for number in numbers]
            logits = logits_NV if len(numbers) == len(tokens) else logits_NV[numbers]
            seen = [[*one.prompt, *one.tokens, *read] for one, read in wanted] if sampling.looks_back else []
            uniforms = [one.uniform(len(one.tokens) + len(read)) for one, read in wanted]
            uniform_N = torch.tensor(uniforms, dtype=torch.float64, device=self._device)
            chosen = sampling.choose(sampling.penalise(logits, seen), uniform_N)
            for number, token in zip(numbers, chosen.tolist(), strict=True):
                tokens[number] = token
        return tokens

    def _produced(self, request: Request, token: int, logits_V: Tensor) -> Produced:
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
