"""C4's editing keeps lines of prose and leaves out menus, notices and code, line by line or sentence by sentence."""

from functools import partial

import pyarrow
import pytest

from hornbook.corpus.rules import c4
from hornbook.corpus.text_batch import TextBatch

C4_EDIT = partial(c4.edit_text, unit="lines", ends_with_punctuation=True, min_words=3, max_word_length=1000)


@pytest.mark.parametrize(
    "line",
    [
        "It is late.",
        "Is it late?",
        "It is late!",
        'He said "late"',
        "She said 'late'",
        "  It is late.  ",
        "It {is} late.",
    ],
)
def test_prose_stays(line):
    assert C4_EDIT(line) == line.strip()


@pytest.mark.parametrize(
    "line",
    [
        "Home About Contact",
        "Read more about it...",
        "Too short.",
        "Please enable JavaScript to go on.",
        "This site uses cookies, like all sites.",
        "Here is our Privacy Policy.",
        f"This is {'long' * 251}.",
        "",
    ],
)
def test_what_is_no_prose_is_left_out(line):
    assert C4_EDIT(f"It was late.\n{line}\nShe went home.") == "It was late.\nShe went home."


def test_marks_of_citations_go():
    assert C4_EDIT("It rained[1] a lot.[citation needed]\nAs always.[edit] Or [not].") == (
        "It rained a lot.\nAs always. Or [not]."
    )


def test_what_is_switched_off_leaves_nothing_out():
    text = f"Menu\n\nGo on...\n{'x' * 2000}."
    kept = c4.edit_text(text, "lines", ends_with_punctuation=False, min_words=None, max_word_length=None)
    assert kept == text
    assert C4_EDIT(text) == ""


def test_sentences_are_judged_one_by_one_and_stay_in_their_lines():
    text = "It was late. No. She went home (alone)! Click here for more\n\nThe cookie policy is here. He had gone."
    assert c4.edit_text(text, "sentences", True, 2, 1000) == "It was late. She went home (alone)! He had gone."
    assert c4.edit_text(text, "sentences", False, 2, None) == (
        "It was late. She went home (alone)! Click here for more\nHe had gone."
    )


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("One", 1),
        ("One. Two! Three? Four", 4),
        ('He said "yes." She said (no.) They?!', 3),
        ("Wait... what… now", 3),
        ("3.5 cm is not v1.2", 1),
        ("Menu\nHome\n\nNews. Old\n", 4),
        ("\n\nOne. \n\n", 1),
    ],
)
def test_sentences_end_with_their_mark_or_their_line(text, count):
    batch = TextBatch(pyarrow.array([text, text], pyarrow.large_string()))
    assert c4.sentence_count(batch).tolist() == [count, count]


def test_what_is_kept_of_the_sentences_counts_as_many():
    text = "Menu of the day\nIt was late. She went. Home of the cat\n\n\nHe slept. All was well."
    kept = c4.edit_text(text, "sentences", False, 1, None)
    batch = TextBatch(pyarrow.array([text, kept], pyarrow.large_string()))
    assert c4.sentence_count(batch).tolist() == [6, 6]
