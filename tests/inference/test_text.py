import pytest

from hornbook.inference.text import TextStream
from hornbook.tokenizer.tokenizer import Tokenizer


def pieces(tokenizer: Tokenizer, text: str, stops: list[str]) -> list[str]:
    stream = TextStream(tokenizer, stops)
    made = [stream.add(token) for token in tokenizer.encode(text)]
    return [*made, stream.finish()]


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [
        ("the cat sat", ["cat"], "the "),
        ("the cat sat", ["sat", "cat"], "the "),
        ("the cat sat", ["dog"], "the cat sat"),
        ("the ca", ["cat"], "the ca"),
        ("aab", ["ab"], "a"),
        ("x東京y", ["京"], "x東"),
        ("x東京y", [""], "x東京y"),
    ],
)
def test_text_ends_before_the_first_stop_string(text: str, stops: list[str], expected: str, tokenizer: Tokenizer):
    assert "".join(pieces(tokenizer, text, stops)) == expected


def test_the_beginning_of_a_stop_string_is_held_back_until_it_is_none(tokenizer: Tokenizer):
    stream = TextStream(tokenizer, ["zqzq!"])
    made = [stream.add(token) for token in tokenizer.encode("zqzq")]
    assert "".join(made) == ""
    assert stream.add(tokenizer.encode("x")[0]) == "zqzqx"


def test_a_character_that_is_cut_off_is_marked(tokenizer: Tokenizer):
    stream = TextStream(tokenizer)
    made = [stream.add(token) for token in tokenizer.encode("a東")[:-1]]
    assert "".join(made) == "a"
    assert stream.finish() == "\ufffd"
