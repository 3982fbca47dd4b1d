"""`hornbook sample` and `hornbook chat`: a trained model in the terminal, its text shown as it is made."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from hornbook.errors import UserError
from hornbook.inference.engine import Engine
from hornbook.inference.examples import example_questions
from hornbook.inference.load import TUNED_STAGES, EngineOptions, find_model, load_engine
from hornbook.inference.sampling import Sampling
from hornbook.inference.text import TextStream
from hornbook.runtime import derive_seed
from hornbook.tokenizer.chat import Message, render, without_oldest
from hornbook.tokenizer.tokenizer import Tokenizer

_LEAVES = ("/quit", "/exit")


@dataclass(frozen=True)
class Writing:
    """How a text is written: the options of `Sampling`, and where it ends.

    tokens: to write at most. stop: texts that end what is written and are no part of it. int8, drafts: as in
    `EngineOptions`.
    """

    tokens: int
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 1
    int8: bool = False
    drafts: bool = False

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise UserError(f"--tokens: must be 1 or more, but is {self.tokens}")
        try:
            Sampling(self.temperature, self.top_k, self.top_p, self.min_p, self.repetition_penalty)
        except UserError as problem:
            raise UserError(f"--{problem}") from None

    def load(self, directory: Path) -> Engine:
        """The engine that writes so."""
        return load_engine(directory, EngineOptions(int8=self.int8, has_drafts=self.drafts))

    def pieces(
        self, engine: Engine, prompt: Sequence[int], tokens: int, seed: int, stop_ids: Collection[int] = ()
    ) -> Iterator[str]:
        """What the model writes after the prompt, piece by piece."""
        stream = engine.stream(
            prompt,
            tokens,
            self.temperature,
            self.top_k,
            self.top_p,
            seed=seed,
            stop_ids=stop_ids,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
        )
        return text_pieces(stream, engine.tokenizer, self.stop)


def sample(run: Path, prompt: str, writing: Writing, stage: str | None = None) -> None:
    """Print the prompt and what continues it.

    `run` is a run or a folder in Hugging Face's layout; `stage` picks one of the run's models, by default the
    pretrained one: it goes on with a text, where a tuned model waits to be asked.
    Raises `UserError` where there is none.
    """
    engine = writing.load(find_model(run, (stage,) if stage else ("pretrain", *TUNED_STAGES)))
    ids = engine.tokenizer.encode(prompt)
    print(prompt, end="", flush=True)
    for piece in writing.pieces(engine, ids, writing.tokens, writing.seed):
        print(piece, end="", flush=True)
    print()


def chat(run: Path, writing: Writing, stage: str | None = None) -> None:
    """Talk with a tuned model until `/quit` or the end of the input. `/example` asks something it can be asked.

    `run` and `stage` as in `sample`, but that of a run the model is taken that was tuned last, and no other unless
    asked for: one that never saw a conversation does not answer. The whole conversation is shown to the model
    at each turn; when it no longer fits, its oldest turns are left out.
    """
    engine = writing.load(find_model(run, (stage,) if stage else TUNED_STAGES))
    tokenizer, context_tokens = engine.tokenizer, engine.model.config.max_seq_len
    end_of_turn_id = tokenizer.special_id("<|end|>")
    reply_tokens = min(writing.tokens, context_tokens // 2)
    room_tokens = context_tokens - reply_tokens
    messages: list[Message] = []
    turn = 0
    examples = example_questions(run)
    next_examples = cycle(examples)
    about_examples = " /example asks something it never saw." if examples else ""
    commands = f"Write to the model and press Enter.{about_examples} /quit leaves."
    print(commands)
    while (text := _ask()) not in _LEAVES:
        if text == "/example" and examples:
            text, messages = next(next_examples), []
            print(f"{text}\n")
        elif text.startswith("/"):
            print(f"{text} is no command here. {commands}")
            continue
        if not text:
            continue
        messages = without_oldest([*messages, {"role": "user", "content": text}], tokenizer, room_tokens)
        ids, _ = render(messages, tokenizer, add_generation_prompt=True)
        turn += 1
        turn_seed = derive_seed(writing.seed, "turn", turn)
        reply = ""
        for piece in writing.pieces(engine, ids, reply_tokens, turn_seed, {end_of_turn_id}):
            print(piece, end="", flush=True)
            reply += piece
        print()
        messages.append({"role": "assistant", "content": reply})


def text_pieces(tokens: Iterable[int], tokenizer: Tokenizer, stop_strings: Sequence[str] = ()) -> Iterator[str]:
    """The text of a stream of tokens, each piece as soon as its characters are whole, up to a stop string.

    A token holds bytes, and a character of several bytes can be spread over several tokens. Bytes that never
    become a character come out as U+FFFD.
    """
    stream = TextStream(tokenizer, stop_strings)
    for token in tokens:
        if piece := stream.add(token):
            yield piece
        if stream.has_stopped:
            return
    if rest := stream.finish():
        yield rest


def _ask() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        print()
        return "/quit"
