"""Benchmarks by likelihood: which choice the model finds likeliest, item by item, and what that comes to.

The text before a choice and the choice are encoded together and cut at the length of the first alone, a blank
between them going to the choice, as EleutherAI's harness does; a choice after nothing follows the end of a text.
A text that is too long loses its beginning. A tie is never right; the harness counts the first as chosen.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hornbook.errors import UserError
from hornbook.evaluation.benchmarks import Item
from hornbook.evaluation.scores import share, standard_error
from hornbook.inference.engine import Engine
from hornbook.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Judged:
    """What a model made of one item: the log-probability of each choice, in nats, and whether it would write it."""

    item: Item
    nats: tuple[float, ...]
    is_greedy: tuple[bool, ...]
    is_cut: bool

    @property
    def is_right(self) -> bool:
        """Whether the right choice is likelier than all others; where there are none, whether it would be written."""
        if len(self.nats) == 1:
            return self.is_greedy[0]
        return _is_highest(self.nats, self.item.gold)

    @property
    def is_right_normalised(self) -> bool:
        """The same with the log-probability divided by the characters of the choice."""
        per_character = [nats / len(choice) for nats, choice in zip(self.nats, self.item.choices, strict=True)]
        return self.is_right if len(self.nats) == 1 else _is_highest(per_character, self.item.gold)


def judge(engine: Engine, items: Sequence[Item]) -> list[Judged]:
    """Let the model judge every choice of every item; in the items' order."""
    pairs = [
        encode_pair(context, f" {choice}", engine.tokenizer)
        for item in items
        for context, choice in zip(item.contexts, item.choices, strict=True)
    ]
    shown = ends_of_contexts(pairs, engine)
    scored = iter(engine.score_greedy(shown, [choice for _, choice in pairs]))
    cuts = iter(len(kept) < len(context) for kept, (context, _) in zip(shown, pairs, strict=True))
    judged = []
    for item in items:
        nats, greedy = zip(*(next(scored) for _ in item.choices), strict=True)
        judged.append(Judged(item, nats, greedy, sum(next(cuts) for _ in item.choices) > 0))
    return judged


def ends_of_contexts(pairs: Sequence[tuple[list[int], list[int]]], engine: Engine) -> list[list[int]]:
    """Of each context as much of its end as fits before its choice. Raises UserError where nothing of it would."""
    # The last token is only predicted, so one more than the context can be scored.
    room = engine.model.config.max_seq_len + 1
    for _, choice in pairs:
        if len(choice) >= room:
            raise UserError(
                f"A choice has {len(choice)} tokens, but the model's context holds {room - 1}: leave this benchmark "
                "out, or train with a larger model.max_seq_len."
            )
    return [context[max(0, len(context) + len(choice) - room) :] for context, choice in pairs]


def encode_pair(context: str, choice: str, tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The ids of both; see the module."""
    if not context:
        return [tokenizer.end_of_text_id], tokenizer.encode(choice)
    bare = context.rstrip()
    both = tokenizer.encode(context + choice)
    n_context = len(tokenizer.encode(bare))
    return both[:n_context], both[n_context:]


def benchmark_scores(judged: Sequence[Judged], has_length: bool) -> dict[str, Any]:
    """The figures of one benchmark: shares of right answers with their standard errors, and the loss of the right ones.

    groups: the share for each group, where the items have some; the accuracy is over all items all the same.
    """
    right = [one.is_right for one in judged]
    scores: dict[str, Any] = {"accuracy": share(right), "accuracy_stderr": standard_error(right)}
    if has_length:
        normalised = [one.is_right_normalised for one in judged]
        scores |= {"normalised": share(normalised), "normalised_stderr": standard_error(normalised)}
    scores["chance"] = sum(1 / len(one.nats) if len(one.nats) > 1 else 0.0 for one in judged) / len(judged)
    scores["gold_nats"] = -sum(one.nats[one.item.gold] for one in judged) / len(judged)
    scores |= {"n": len(judged), "n_cut": sum(one.is_cut for one in judged)}
    groups = sorted({one.item.group for one in judged} - {""})
    of_group = {group: [one.is_right for one in judged if one.item.group == group] for group in groups}
    return scores | {"groups": {group: share(ones) for group, ones in of_group.items()}}


def paired_test(ours: Sequence[bool], theirs: Sequence[bool]) -> dict[str, float]:
    """Whether two models differ on the same items: the exact test of McNemar (Psychometrika 12, 1947).

    Only items that one has right and the other wrong tell. p_value: how likely a split of these as uneven as
    this is where both are equally good. difference_stderr: of the difference of the two accuracies.
    """
    only_ours = sum(a and not b for a, b in zip(ours, theirs, strict=True))
    only_theirs = sum(b and not a for a, b in zip(ours, theirs, strict=True))
    n, discordant = len(ours), only_ours + only_theirs
    difference = (only_ours - only_theirs) / n
    variance = (discordant / n - difference**2) / max(1, n - 1)
    tail = sum(math.comb(discordant, k) for k in range(min(only_ours, only_theirs) + 1)) / 2**discordant
    return {
        "difference": difference,
        "difference_stderr": math.sqrt(max(0.0, variance)),
        "only_first_right": only_ours,
        "only_second_right": only_theirs,
        "p_value": min(1.0, 2 * tail),
    }


def _is_highest(values: Sequence[float], gold: int) -> bool:
    return all(values[gold] > value for place, value in enumerate(values) if place != gold)
