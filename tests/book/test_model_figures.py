"""The pictures of a model and of what was expected of it: drawn from what a run has left, and only then."""

import json
import shutil

import pypdf
import pytest

from hornbook.book.build import _planned, build_book
from hornbook.book.figures import draw_all, run_drawings
from hornbook.book.model_figures import model_drawings
from hornbook.book.reference import REFERENCE_RUN, record_run
from hornbook.book.run_facts import read_run


def drawn_of(path):
    run = _planned(read_run(path), path)
    return draw_all(run, run_drawings(run) | model_drawings(run))


def test_each_picture_is_drawn_and_says_in_words_what_it_shows(full_run):
    drawn = drawn_of(full_run)
    assert "Attention of head 2 in layer 2 on 6 tokens. It gives 22% to the token before." in drawn["attention-1"].alt
    assert "the token before: most, 0.22, in layer 2, head 2" in drawn["habits"].alt
    assert "kite is nearest to lamp, 0.62" in drawn["neighbours"].alt
    assert "The mean is 1.2 over the vocabulary and 1.7 over the tokens" in drawn["token-lengths"].alt
    assert "weights 5.2 predicted, 5.2 counted" in drawn["memory"].alt
    predicted = _planned(read_run(full_run), full_run).facts["plan"]["memory_megabytes"]["activations"]
    assert f"activations {predicted:.1f} predicted, 66.1 counted" in drawn["memory"].alt
    assert all(picture.svg.startswith(b"<?xml") and len(picture.alt) > 20 for picture in drawn.values())


def test_the_prediction_is_made_for_what_was_counted(full_run):
    plan = _planned(read_run(full_run), full_run).facts["plan"]
    assert (plan["memory_rows"], plan["memory_precision"]) == (4, "float32")
    assert plan["memory_megabytes"]["cast_weights"] == 0


def test_the_expected_curve_is_drawn_with_what_was_measured(full_run):
    # The recorded losses end near 1.8, and the band asks for 3.4 from the seventh of twenty windows on.
    assert "6 of 20 windows lie in the band" in drawn_of(full_run)["expected-pretrain"].alt


@pytest.mark.parametrize("gone", ["expected.json", "verdict"])
def test_nothing_is_expected_where_the_run_had_no_reference(full_run, gone):
    if gone == "verdict":
        path = full_run / "pretrain" / "stage.json"
        path.write_text(path.read_text().replace("the recipe's reference", "the law fitted to this data"))
    else:
        (full_run / gone).unlink()
    assert "expected-pretrain" not in drawn_of(full_run)


def test_an_older_run_has_none_of_them(tmp_path):
    shutil.copytree(REFERENCE_RUN, tmp_path / "run")
    for name in ("attention", "embeddings", "tokens", "memory", "samples"):
        (tmp_path / "run" / "pretrain" / f"{name}.json").unlink(missing_ok=True)
    (tmp_path / "run" / "expected.json").unlink(missing_ok=True)
    drawn = drawn_of(tmp_path / "run")
    assert not {"attention-1", "habits", "neighbours", "token-lengths", "expected-pretrain"} & set(drawn)
    assert "counted" not in drawn["memory"].alt


def test_the_report_has_verdict_causes_and_the_score_of_the_plan(full_run, tmp_path):
    build_book(full_run, tmp_path / "report.md", only_results=True, format="md")
    text = (tmp_path / "report.md").read_text()
    assert "Not as expected since step 601" in text
    assert "| a leak | The loss is far too low. | Print a row with its labels. |" in text
    assert "| parameters | 1,312,384 | 1,312,384 | +0.0% |" in text
    assert "run without an expected curve, so there is no verdict" in text  # of fine-tuning


@pytest.mark.slow
def test_the_whole_book_of_such_a_run_can_be_set(full_run, tmp_path):
    build_book(full_run, tmp_path / "book.pdf")
    pages = [page.extract_text() for page in pypdf.PdfReader(tmp_path / "book.pdf").pages]
    text = " ".join(" ".join(pages).split())
    for said in ("Perhaps a leak", "Mira had the kite.", "for 4 rows at once, computed in float32", "lamp 0.63"):
        assert said in text


def test_the_recording_is_small_and_keeps_what_the_book_draws(full_run, tmp_path):
    record_run(full_run, tmp_path / "recorded")
    files = [path for path in (tmp_path / "recorded").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 300_000
    assert read_run(tmp_path / "recorded").facts["pictures"] == read_run(full_run).facts["pictures"]
    assert read_run(tmp_path / "recorded").get("expected.seeds") == json.loads("[1, 2, 3]")


def test_the_committed_recording_is_small():
    assert sum(path.stat().st_size for path in REFERENCE_RUN.rglob("*") if path.is_file()) < 300_000
