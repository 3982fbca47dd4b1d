"""A call of a client under way: however it ends, nothing goes on being computed for it. And how its tokens are told."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from hornbook.inference.answers import Choice, TooSlow, Written, chat_logprobs, deltas, text_logprobs
from hornbook.inference.batch import Produced, Request
from hornbook.inference.sampling import Sampling
from hornbook.inference.text import TextStream
from hornbook.tokenizer.tokenizer import Tokenizer


@pytest.fixture
def choice(tokenizer: Tokenizer) -> Choice:
    """A choice of which one token has been asked for."""
    return Choice(0, Request([1], 40, Sampling(), set(), (1, 0), None), TextStream(tokenizer, ()))


@pytest.fixture
def worker() -> Any:
    """Computes nothing; the test hands out tokens in its place through `deliver`."""
    stand_in = SimpleNamespace(deliver={})
    stand_in.submit = stand_in.deliver.update
    return stand_in


@pytest.mark.parametrize("turns", range(4))
def test_whoever_leaves_just_as_a_token_comes_is_gone_all_the_same(turns: int, choice: Choice, worker: Any):
    async def leave() -> None:
        async def read() -> None:
            async for _ in deltas(worker, [choice], seconds=60):
                pass

        reading = asyncio.ensure_future(read())
        await _turns(2)
        worker.deliver[choice.request](Produced(choice.request, 65, 0.0, [], None))
        await _turns(turns)
        reading.cancel()
        await _turns(10)
        assert reading.cancelled()

    asyncio.run(leave())
    assert choice.request.is_cancelled


def test_an_answer_that_takes_too_long_is_given_up(choice: Choice, worker: Any):
    async def wait() -> None:
        with pytest.raises(TooSlow):
            await anext(deltas(worker, [choice], seconds=0.01))

    asyncio.run(wait())
    assert choice.request.is_cancelled


@pytest.mark.parametrize(
    ("written", "stops", "text", "places"),
    [
        ([b"at", b" cat", b"s"], [], "at cats", [0, 2, 6]),
        ([b"a", b"\xc3", b"\xb6", b"\xe6", b"\x9d", b"\xb1", b"b"], [], "aö東b", [0, 1, 1, 2, 2, 2, 3]),
        # A character that is cut off is one mark; a byte that no character has here is one too.
        ([b"a", b"\xe6", b"\x9d", b"cat"], [], "a\ufffdcat", [0, 1, 1, 2]),
        ([b"\xe6", b"\xc3", b"\xb6", b"b"], [], "\ufffdöb", [0, 1, 1, 2]),
        ([b"\x9d", b"\xb1", b"b", b"\xf0", b"\x9f"], [], "\ufffd\ufffdb\ufffd", [0, 1, 2, 3, 3]),
        # What may become a stop string is held back, while the token that it ends is out already.
        ([b"at", b" cat", b"s"], ["tx"], "at cats", [0, 2, 6]),
        ([b"\xc3", b"\xb6", b"at", b"at"], ["ata"], "ö", [0, 0, 1, 3]),
    ],
)
def test_each_token_is_told_with_its_place_in_the_text(
    written: list[bytes], stops: list[str], text: str, places: list[int], tokenizer: Tokenizer
):
    ids = {tokenizer.token_bytes(token): token for token in range(tokenizer.vocab_size)}
    choice = Choice(0, Request([1], 40), TextStream(tokenizer, stops))
    produced = [Produced(choice.request, ids[token], -0.5, [], None) for token in written]
    came = [choice.absorb(one) for one in [*produced, Produced(choice.request, None, None, [], "stop")]]
    assert "".join(delta.text for delta in came) == text
    told = [text_logprobs(delta.tokens, tokenizer) for delta in came]
    assert [place for one in told for place in one["text_offset"]] == places


def test_every_token_that_could_have_come_has_a_name_of_its_own(tokenizer: Tokenizer):
    tokens = range(tokenizer.vocab_size)
    one = Written(tokens[0], -0.5, [(token, -float(token)) for token in tokens], 0)
    (alternatives,) = text_logprobs([one], tokenizer)["top_logprobs"]
    assert list(alternatives.values()) == [-float(token) for token in tokens]
    names = dict(zip(tokens, alternatives, strict=True))
    (whole,), (first, second) = tokenizer.encode(" cat"), tokenizer.encode("ö")
    assert [names[token] for token in (whole, first, second)] == [" cat", r"bytes:\xc3", r"bytes:\xb6"]
    assert names[tokenizer.end_of_text_id] == "<|endoftext|>"
    entries = chat_logprobs([one], tokenizer)["content"][0]["top_logprobs"]
    assert entries[first] == {"token": r"bytes:\xc3", "logprob": -float(first), "bytes": [0xC3]}


async def _turns(count: int) -> None:
    """Let the event loop turn so many times."""
    for _ in range(count):
        await asyncio.sleep(0)
