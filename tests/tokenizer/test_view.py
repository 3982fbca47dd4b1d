"""The view of tokens says without colour where each ends and what is learned of it."""

from hornbook.tokenizer.chat import render
from hornbook.tokenizer.tokenizer import Tokenizer
from hornbook.tokenizer.view import show_tokens


def test_tokens_are_parted_and_what_is_learned_is_enclosed(tokenizer: Tokenizer) -> None:
    ids, is_learned = render(
        [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "I."}, {"role": "user", "content": "A"}],
        tokenizer,
    )
    shown = show_tokens(ids, is_learned, tokenizer).plain
    assert shown.startswith("<|user|>│W")
    assert "│<|end|>│<|assistant|>⟦I│.│<|end|>⟧<|user|>│A│<|end|>" in shown
    bare = shown.replace("│", "").replace("⟦", "").replace("⟧", "")
    assert bare == "<|user|>Who?<|end|><|assistant|>I.<|end|><|user|>A<|end|>"


def test_colour_says_the_same(tokenizer: Tokenizer) -> None:
    ids, is_learned = render([{"role": "user", "content": "Who"}, {"role": "assistant", "content": "I."}], tokenizer)
    shown = show_tokens(ids, is_learned, tokenizer)
    green = "".join(shown.plain[span.start : span.end] for span in shown.spans if span.style == "green")
    assert green == "I."


def test_newlines_and_parts_of_characters_are_seen(tokenizer: Tokenizer) -> None:
    ids = [*tokenizer.encode("a\nb"), tokenizer.encode("🙂")[0]]
    shown = show_tokens(ids, [False] * len(ids), tokenizer).plain
    assert "↵\n" in shown
    assert shown.endswith("│‹f0›")


def test_what_is_learned_up_to_the_end_is_closed(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("ab")
    assert show_tokens(ids, [True] * len(ids), tokenizer).plain.startswith("⟦a")
    assert show_tokens(ids, [True] * len(ids), tokenizer).plain.endswith("⟧")
    assert show_tokens([], [], tokenizer).plain == ""
