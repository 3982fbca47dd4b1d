"""Of texts that are the same but for case, punctuation and blanks, exactly the first one stays."""

from hypothesis import given, settings
from hypothesis import strategies as st

from hornbook.corpus.deduplicate import find_repeats, plain, text_key
from hornbook.corpus.engine import load_daft


def repeats(texts: list[str]) -> list[bool]:
    daft = load_daft()
    keys = daft.from_pydict({"text": texts}).select(text_key(plain(daft.col("text"))).alias("key")).to_arrow()["key"]
    return (find_repeats(keys.to_numpy()) >= 0).tolist()


def test_case_punctuation_and_blanks_make_no_difference():
    texts = ["The cat sat.", "the  cat\nsat", "The cat sat down.", "THE CAT, SAT!"]
    assert repeats(texts) == [False, True, False, True]


def test_curly_quotes_and_long_dashes_are_punctuation_as_well():
    texts = ['"Don\'t," she said--"no..."', "“Don’t,” she said—“no…”", "«Don´t», she said–‚no‘", "¿Don't she said no?"]
    assert repeats(texts) == [False, True, True, False]
    assert repeats(["年。", "年", "Größe", "Grösse"]) == [False, True, False, False]


def test_the_key_is_the_same_on_every_machine():
    daft = load_daft()
    frame = daft.from_pydict({"text": ["The cat sat."]})
    assert frame.select(text_key(plain(daft.col("text")))).to_pydict()["text"] == [578192228879634653]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=40))
def test_the_first_of_each_text_stays_and_no_other(texts: list[str]):
    firsts = [index for index, is_repeat in enumerate(repeats(texts)) if not is_repeat]
    assert firsts == sorted(map(texts.index, set(texts)))
