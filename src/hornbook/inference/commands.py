"""`hornbook sample` and `hornbook chat`: a trained model in the terminal, its text shown as it is made."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from hornbook.errors import UserError
from hornbook.inference.load import find_model, load_engine
from hornbook.inference.text import TextStream
from hornbook.runtime import derive_seed
from hornbook.tokenizer.chat import Message, render
from hornbook.tokenizer.tokenizer import Tokenizer

_LONGEST_REPLY_TOKENS = 256


def sample(run: Path, prompt: str, tokens: int, temperature: float, seed: int, stage: str | None = None) -> None:
    """Print the prompt and up to `tokens` tokens that continue it.

    `run` is a run or a folder in Hugging Face's layout; `stage` picks one of the run's models, by default the
    pretrained one: it goes on with a text, where a fine-tuned model waits to be asked.
    Raises `UserError` where there is none.
    """
    if tokens < 1:
        raise UserError(f"--tokens: must be 1 or more, but is {tokens}")
    engine = load_engine(find_model(run, (stage,) if stage else ("pretrain", "finetune")))
    ids = engine.tokenizer.encode(prompt)
    print(prompt, end="", flush=True)
    for piece in text_pieces(engine.stream(ids, tokens, temperature, seed=seed), engine.tokenizer):
        print(piece, end="", flush=True)
    print()


def chat(run: Path, temperature: float, seed: int, stage: str | None = None) -> None:
    """Talk with a fine-tuned model until `/quit` or the end of the input.

    `run` and `stage` as in `sample`, but that only a fine-tuned model of a run is taken unless another is
    asked for: one that never saw a conversation does not answer. The whole conversation is shown to the model
    at each turn; when it no longer fits, its oldest turns are left out.
    """
    engine = load_engine(find_model(run, (stage or "finetune",)))
    tokenizer, context_tokens = engine.tokenizer, engine.model.config.max_seq_len
    end_of_turn_id = tokenizer.special_id("<|end|>")
    reply_tokens = min(_LONGEST_REPLY_TOKENS, context_tokens // 2)
    room_tokens = context_tokens - reply_tokens
    messages: list[Message] = []
    turn = 0
    print("Write to the model and press Enter. /quit leaves.")
    while (text := _ask()) != "/quit":
        if not text:
            continue
        messages = without_oldest([*messages, {"role": "user", "content": text}], tokenizer, room_tokens)
        ids, _ = render(messages, tokenizer, add_generation_prompt=True)
        turn += 1
        turn_seed = derive_seed(seed, "turn", turn)
        stream = engine.stream(ids, reply_tokens, temperature, seed=turn_seed, stop_ids={end_of_turn_id})
        reply = ""
        for piece in text_pieces(stream, tokenizer):
            print(piece, end="", flush=True)
            reply += piece
        print()
        messages.append({"role": "assistant", "content": reply})


def text_pieces(tokens: Iterable[int], tokenizer: Tokenizer) -> Iterator[str]:
    """The text of a stream of tokens, each piece as soon as its characters are whole.

    A token holds bytes, and a character of several bytes can be spread over several tokens. Bytes that never
    become a character come out as U+FFFD.
    """
    stream = TextStream(tokenizer)
    for token in tokens:
        if piece := stream.add(token):
            yield piece
    if rest := stream.finish():
        yield rest


def without_oldest(messages: list[Message], tokenizer: Tokenizer, room_tokens: int) -> list[Message]:
    """The conversation without as many of its oldest turns, question and answer, as do not fit the room.

    The last message always stays; should it alone be too long, the engine reads its end.
    """
    while len(messages) > 1 and len(render(messages, tokenizer, add_generation_prompt=True)[0]) > room_tokens:
        messages = messages[2:]
    return messages


def _ask() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        print()
        return "/quit"
