"""The engine: continues and scores many token sequences at once.

A batch holds a bounded number of tokens, so memory does not depend on how many sequences are asked for. What is
continued goes through continuous batching (batch.py); what is scored is sorted by length first.

Shapes: B rows, T tokens of a row, N scored tokens, D d_model, V vocabulary.
"""

import copy
from collections.abc import Collection, Iterator, Sequence
from itertools import groupby, islice
from operator import itemgetter

import torch
from torch import Tensor

from hornbook.errors import UserError
from hornbook.inference.batch import ContinuousBatch, Produced, Request
from hornbook.inference.branches import Branches
from hornbook.inference.sampling import Sampling
from hornbook.model.transformer import Transformer
from hornbook.tokenizer.tokenizer import Tokenizer

_LOGITS_AT_ONCE = 2**24
"""Scores of the vocabulary that are held at a time when texts are scored: 64 MB of float32."""


class Engine:
    """A model made ready for use on a device and in a dtype; by default where and as it is.

    The model is copied if it has to be moved or cast, so one that is being trained is never changed.
    max_batch_tokens bounds rows times the longest of them, new tokens included, in one batch; a single
    sequence may be longer. has_drafts: whether what is written is guessed ahead where that may pay (drafts.py).
    end_ids: tokens that end a text; by default the tokenizer's own.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        max_batch_tokens: int = 8192,
        has_drafts: bool = False,
        end_ids: Collection[int] | None = None,
    ) -> None:
        weight = model.model.embed_tokens.weight
        self.device, self.dtype = device or weight.device, dtype or weight.dtype
        is_ready = weight.device == self.device and weight.dtype == self.dtype
        self.model = model if is_ready else copy.deepcopy(model).to(self.device, self.dtype)
        self.tokenizer = tokenizer
        self.max_batch_tokens, self.has_drafts = max_batch_tokens, has_drafts
        self._end_ids = end_ids

    @property
    def end_ids(self) -> Collection[int]:
        """The tokens that end a text. Raises `UserError` where none were named and the tokenizer has none."""
        return self._end_ids or (self.tokenizer.end_of_text_id,)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        stop_ids: Collection[int] = (),
        min_p: float | None = None,
        repetition_penalty: float = 1.0,
    ) -> list[list[int]]:
        """The continuation of each prompt, in the prompts' order.

        A continuation ends before one of `end_ids` or `stop_ids`, which it does not include, after
        `max_new_tokens`, or when the model's context is full. A prompt that leaves too little of the context
        for the new tokens loses its beginning, but keeps at least half a context of its end.

        Request i draws from the seed and i, whatever the other prompts are. Raises `UserError` for an empty
        prompt and for sampling options out of their range.
        """
        sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty)
        requests = self._requests(prompts, max_new_tokens, sampling, seed, stop_ids)
        for _ in self._continue(requests):
            pass
        return [request.tokens for request in requests]

    def stream(
        self,
        prompt: Sequence[int],
        max_new_tokens: int,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        stop_ids: Collection[int] = (),
        min_p: float | None = None,
        repetition_penalty: float = 1.0,
    ) -> Iterator[int]:
        """The tokens of `generate([prompt], ...)[0]`, each as soon as it is there."""
        sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty)
        for produced in self._continue(self._requests([prompt], max_new_tokens, sampling, seed, stop_ids)):
            if produced.token is not None:
                yield produced.token

    def score(self, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]) -> list[float]:
        """The log-probability, in nats, of each continuation after its prompt: the sum over its tokens.

        Raises `UserError` where a prompt or continuation is empty, or both together exceed the model's context
        by more than the last token, which is predicted but not read.
        """
        return [nats for nats, _ in self.score_greedy(prompts, continuations)]

    @torch.inference_mode()
    def score_greedy(
        self, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
    ) -> list[tuple[float, bool]]:
        """The same, and whether each of its tokens is likelier than any other: greedily it would be written."""
        rows = [[*prompt, *rest] for prompt, rest in zip(prompts, continuations, strict=True)]
        longest = self.model.config.max_seq_len
        for number, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
            if not 0 < len(prompt) < len(row):
                what = "continuation" if prompt else "prompt"
                raise UserError(f"text {number} to score: its {what} is empty")
            if len(row) > longest + 1:
                raise UserError(
                    f"text {number} to score has {len(row)} tokens, but the model's context holds {longest}: "
                    "shorten it, or train with a larger model.max_seq_len"
                )
        groups = list(_sharing_rows(prompts, continuations, self.max_batch_tokens))
        of_group: list[list[tuple[float, bool]]] = [[] for _ in groups]
        for batch in self._batches([len(prompt) + sum(map(len, rests)) for prompt, rests in groups]):
            for i, scores in zip(batch, self._score_batch([groups[i] for i in batch]), strict=True):
                of_group[i] = scores
        return [score for scores in of_group for score in scores]

    def _score_batch(self, groups: list[tuple[list[int], list[Sequence[int]]]]) -> list[list[tuple[float, bool]]]:
        # Nothing follows the last token of a continuation, so it is not read.
        lengths = [[len(prompt), *(len(rest) - 1 for rest in rests)] for prompt, rests in groups]
        rows = [[*prompt, *(token for rest in rests for token in rest[:-1])] for prompt, rests in groups]
        hidden_BTD = self.model(self._to_tensor(rows), cache=Branches(lengths, self.device))
        # The vector at a token predicts the next one; the prompt's last one predicts the first of each continuation.
        parts = []
        for hidden_TD, (n_prompt, *of_row) in zip(hidden_BTD, lengths, strict=True):
            branches = hidden_TD[n_prompt : n_prompt + sum(of_row)].split(of_row)
            parts += [part for branch in branches for part in (hidden_TD[n_prompt - 1 : n_prompt], branch)]
        hidden_ND = torch.cat(parts)
        continuations = [rest for _, rests in groups for rest in rests]
        targets_N = torch.tensor([token for rest in continuations for token in rest], device=self.device)
        n_at_once = max(1, _LOGITS_AT_ONCE // self.model.config.vocab_size)
        log_probabilities, is_best = [], []
        for hidden, target in zip(hidden_ND.split(n_at_once), targets_N.split(n_at_once), strict=True):
            all_log_probabilities = self.model.logits(hidden).float().log_softmax(-1)
            of_target = all_log_probabilities.gather(1, target[:, None])
            log_probabilities.append(of_target.squeeze(1))
            is_best.append((all_log_probabilities >= of_target).sum(dim=-1) == 1)
        sizes = [len(rest) for rest in continuations]
        nats_per_rest = torch.cat(log_probabilities).double().split(sizes)
        best_per_rest = torch.cat(is_best).split(sizes)
        scores = zip(nats_per_rest, best_per_rest, strict=True)
        return [[(nats.sum().item(), bool(best.all())) for nats, best in islice(scores, len(r))] for _, r in groups]

    def _requests(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        sampling: Sampling,
        seed: int,
        stop_ids: Collection[int],
    ) -> list[Request]:
        stops = {*self.end_ids, *stop_ids}
        requests = []
        for number, prompt in enumerate(prompts):
            fitted = self._fit(prompt, max_new_tokens)
            room = min(max_new_tokens, self.model.config.max_seq_len - len(fitted))
            requests.append(Request(fitted, room, sampling, stops, (seed, number)))
        return requests

    def _continue(self, requests: list[Request]) -> Iterator[Produced]:
        """What is made of the requests, step by step, with as many at a time as `max_batch_tokens` allows."""
        requests = [request for request in requests if request.max_new_tokens > 0]
        context = self.model.config.max_seq_len
        longest = max((min(len(request.prompt) + request.max_new_tokens, context) for request in requests), default=0)
        n_rows = min(len(requests), max(1, self.max_batch_tokens // max(longest, 1)))
        if not n_rows:
            return
        batch = ContinuousBatch(self.model, n_rows, longest, self.has_drafts)
        for request in requests:
            batch.submit(request)
        while batch.n_active or batch.n_waiting:
            yield from batch.step()

    def _fit(self, prompt: Sequence[int], max_new_tokens: int) -> list[int]:
        if not prompt:
            raise UserError("the prompt is empty: the model needs at least one token to continue")
        context = self.model.config.max_seq_len
        return list(prompt[-max(context - max_new_tokens, context // 2) :])

    def _batches(self, lengths: list[int]) -> Iterator[list[int]]:
        """Indexes of sequences that go together, longest first, at most `max_batch_tokens` with padding."""
        batch: list[int] = []
        for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
            if batch and (len(batch) + 1) * lengths[batch[0]] > self.max_batch_tokens:
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch

    def _to_tensor(self, rows: list[list[int]]) -> Tensor:
        """(B,T) ids; which id the padding has is of no matter."""
        longest = max(map(len, rows))
        return torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=self.device)


def _sharing_rows(
    prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]], most_tokens: int
) -> Iterator[tuple[list[int], list[Sequence[int]]]]:
    """What goes into a row: a prompt, and those of its continuations that follow each other, as choices do.

    Only where that saves something: a row is no longer than `most_tokens`, and what is added to it no longer than the
    prompt, which would else be read again.
    """
    for prompt, same in groupby(zip(map(list, prompts), continuations, strict=True), itemgetter(0)):
        rests: list[Sequence[int]] = []
        n_tokens = len(prompt)
        for _, rest in same:
            if rests and (len(rest) > len(prompt) or n_tokens + len(rest) > most_tokens):
                yield prompt, rests
                rests, n_tokens = [], len(prompt)
            rests.append(rest)
            n_tokens += len(rest)
        yield prompt, rests
