"""A call of a client under way: however it ends, nothing goes on being computed for it."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from hornbook.inference.answers import Choice, TooSlow, deltas
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


async def _turns(count: int) -> None:
    """Let the event loop turn so many times."""
    for _ in range(count):
        await asyncio.sleep(0)
