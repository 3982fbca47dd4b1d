import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hornbook.errors import UserError
from hornbook.inference import commands
from hornbook.inference.commands import Writing, chat, sample, text_pieces
from hornbook.inference.examples import example_questions
from hornbook.inference.load import load_engine
from hornbook.tokenizer.chat import Message, render
from hornbook.tokenizer.tokenizer import Tokenizer


def test_characters_of_several_tokens_come_out_whole(tokenizer: Tokenizer):
    text = "Once naïve 東京 🙂 upon"
    ids = tokenizer.encode(text)
    pieces = list(text_pieces(ids, tokenizer))
    assert len(ids) > len(text.encode()) / 2  # few merges: the characters are spread over tokens
    assert "".join(pieces) == text
    assert all("\ufffd" not in piece for piece in pieces)


def test_a_piece_comes_as_soon_as_its_character_is_whole(tokenizer: Tokenizer):
    read = []

    def tokens() -> Iterator[int]:
        for token in tokenizer.encode("東京"):
            read.append(token)
            yield token

    assert next(text_pieces(tokens(), tokenizer)) == "東"
    assert b"".join(map(tokenizer.token_bytes, read)) == "東".encode()


def test_a_character_that_is_cut_off_is_marked(tokenizer: Tokenizer):
    assert "".join(text_pieces(tokenizer.encode("a東")[:-1], tokenizer)) == "a\ufffd"


def test_sample_prints_the_prompt_and_what_the_model_makes_of_it(run: Path, capsys: pytest.CaptureFixture[str]):
    sample(run, "Once upon", Writing(20, temperature=1.0, seed=4), stage="pretrain")
    printed = capsys.readouterr().out
    engine = load_engine(run / "pretrain" / "final")
    ids = engine.tokenizer.encode("Once upon")
    (made,) = engine.generate([ids], 20, temperature=1.0, seed=4)
    assert made
    assert printed == "Once upon" + "".join(text_pieces(made, engine.tokenizer)) + "\n"


def test_sample_takes_the_pretrained_model_unless_told_otherwise(run: Path, capsys: pytest.CaptureFixture[str]):
    printed = {}
    for stage in (None, "finetune", "pretrain"):
        sample(run, "Once upon", Writing(20), stage=stage)
        printed[stage] = capsys.readouterr().out
    assert printed[None] == printed["pretrain"] != printed["finetune"]


@pytest.mark.parametrize(("prompt", "tokens", "complaint"), [("", 5, "prompt is empty"), ("a", 0, "--tokens")])
def test_sample_refuses_what_it_cannot_do(run: Path, prompt: str, tokens: int, complaint: str):
    with pytest.raises(UserError, match=complaint):
        sample(run, prompt, Writing(tokens))


class ScriptedEngine:
    """Says always the same, and keeps what it was asked."""

    def __init__(self, tokenizer: Tokenizer, reply: str) -> None:
        self.tokenizer = tokenizer
        self.model = SimpleNamespace(config=SimpleNamespace(max_seq_len=96))
        self.reply = reply
        self.asked: list[list[int]] = []

    def stream(self, prompt: list[int], *_: Any, **options: Any) -> Iterator[int]:
        assert self.tokenizer.special_id("<|end|>") in options["stop_ids"]
        self.asked.append(prompt)
        return iter(self.tokenizer.encode(self.reply))


@pytest.fixture
def scripted(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> ScriptedEngine:
    engine = ScriptedEngine(tokenizer, "mat é")
    monkeypatch.setattr(commands, "load_engine", lambda folder, options: engine)
    return engine


def test_chat_shows_the_model_the_whole_conversation(
    run: Path, scripted: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sys.stdin", io.StringIO("cat\n\nsat\n/quit\nnever read\n"))
    chat(run, Writing(40))
    assert capsys.readouterr().out.count("mat é") == 2
    conversation: list[Message] = [{"role": "user", "content": "cat"}]
    first, _ = render(conversation, scripted.tokenizer, add_generation_prompt=True)
    conversation += [{"role": "assistant", "content": "mat é"}, {"role": "user", "content": "sat"}]
    second, _ = render(conversation, scripted.tokenizer, add_generation_prompt=True)
    assert scripted.asked == [first, second]


def test_chat_asks_an_example_as_the_beginning_of_a_new_conversation(
    run: Path, scripted: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    rows = [{"messages": [{"role": "user", "content": text}], "answer": ""} for text in ("cat", "sat", "cat")]
    (run / "finetune" / "answers.json").write_text(json.dumps(rows))
    monkeypatch.setattr("sys.stdin", io.StringIO("mat\n/example\n/example\n/example\n"))
    chat(run, Writing(40))
    assert "/example" in capsys.readouterr().out
    expected = [
        render([{"role": "user", "content": text}], scripted.tokenizer, add_generation_prompt=True)[0]
        for text in ("mat", "cat", "sat", "cat")
    ]
    assert scripted.asked == expected


@pytest.mark.parametrize(
    "kept",
    [
        {"cat": 1},
        [1],
        [{"messages": "cat"}],
        [{"messages": [{"role": "user", "content": None}]}],
        [{"messages": [{"role": "assistant", "content": "mat"}]}],
    ],
)
def test_there_are_no_examples_where_none_can_be_read(run: Path, kept: Any):
    (run / "finetune" / "answers.json").write_text(json.dumps(kept))
    assert example_questions(run) == []


def test_chat_takes_no_command_for_a_question(
    run: Path, scripted: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    lines = iter(["/help", "/exit"])
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    chat(run, Writing(tokens=8))
    assert not scripted.asked
    assert "/help is no command here." in capsys.readouterr().out


@pytest.mark.parametrize("option", ["temperature", "top_k", "top_p", "min_p", "repetition_penalty"])
def test_a_wrong_way_of_writing_is_refused_before_anything_is_printed(option: str):
    with pytest.raises(UserError, match=f"^--{option}: must be"):
        Writing(tokens=8, **{option: -1})


def test_chat_ends_with_the_input(run: Path, scripted: ScriptedEngine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("cat\n"))
    chat(run, Writing(40))
    assert len(scripted.asked) == 1


def test_chat_with_a_model_that_was_not_fine_tuned_is_refused(run: Path):
    shutil.rmtree(run / "finetune")
    with pytest.raises(UserError, match="finetune"):
        chat(run, Writing(40))


def test_chat_with_a_real_model_answers(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr("sys.stdin", io.StringIO("cat\nsat\n"))
    chat(run, Writing(40, temperature=1.0))
    first = capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO("cat\nsat\n"))
    chat(run, Writing(40, temperature=1.0))
    assert capsys.readouterr().out == first
    assert len(first.splitlines()) >= 3
