"""The report: counts add up, samples and histograms are the same in every order, precision and recall are right."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy
import pyarrow
import pytest

from hornbook.corpus import histograms as histograms_module
from hornbook.corpus.histogram_picture import draw_histograms
from hornbook.corpus.histograms import SCORES, Histograms
from hornbook.corpus.report import SAMPLES, ReportWriter
from hornbook.corpus.report_quality import MEANT_FOR, Quality
from hornbook.recipe_data import CorpusSection, FilterSection

SCHEMA = pyarrow.schema(
    {
        "id": pyarrow.string(), "text": pyarrow.large_string(), "excerpt": pyarrow.string(),
        "problem": pyarrow.string(), "reasons": pyarrow.list_(pyarrow.string()),
        "labels": pyarrow.list_(pyarrow.string()), "is_wanted": pyarrow.bool_(), "is_restored": pyarrow.bool_(),
        "n_raw_bytes": pyarrow.int64(), "n_bytes": pyarrow.int64(), "generator_bits": pyarrow.float64(),
        "split": pyarrow.string(), "times": pyarrow.int64(),
    }
)  # fmt: skip


def document(name, text="The cat sat on the mat with a hat.", reasons=(), problem=None, labels=(), is_wanted=False):
    return {
        "id": name, "text": text, "excerpt": text[:20], "problem": problem, "reasons": list(reasons),
        "labels": list(labels), "is_wanted": is_wanted, "is_restored": is_wanted, "n_raw_bytes": len(text) + 10,
        "n_bytes": len(text), "generator_bits": None, "split": "train", "times": 1,
    }  # fmt: skip


def parted(documents):
    kept = [row for row in documents if not row["reasons"]]
    dropped = [row for row in documents if row["reasons"]]
    return [pyarrow.Table.from_pylist(rows, SCHEMA) for rows in (documents, kept, dropped)]


def report_of(*tables, **settings):
    writer = ReportWriter(CorpusSection(**settings))
    for documents in tables:
        writer.add(*parted(documents))
    return writer.finish(seconds=2.0)


def many(n=200):
    reasons = {0: ["min_words"], 1: ["min_words", "min_stop_words"], 2: ["duplicate"], 3: ["empty"]}
    return [
        document(f"doc-{i}", "word " * (i % 17 + 1), reasons.get(i % 8, ()), "empty" if i % 8 == 3 else None)
        for i in range(n)
    ]


def test_counts_and_bytes_add_up():
    documents = many()
    report = report_of(documents)
    counts = report["documents"]
    assert counts == {"read": 200, "set_aside": 25, "dropped": 75, "kept": 100, "train": 100, "validation": 0}
    assert counts["read"] == counts["set_aside"] + counts["dropped"] + counts["kept"]
    assert [step["documents"] for step in report["steps"]] == [200, 175, 125, 100]
    by_words = [row for row in documents if "min_words" in row["reasons"]]
    entry = report["dropped"]["min_words"]
    assert (entry["documents"], entry["documents_for_this_reason_alone"]) == (50, 25)
    assert entry["bytes"] == sum(row["n_bytes"] for row in by_words)
    assert set(report["set_aside"]) == {"empty"}
    assert set(report["dropped"]) == {"min_words", "min_stop_words", "duplicate"}


def test_what_its_weight_leaves_out_had_passed_the_filters():
    documents = [document("a"), document("b", reasons=["weight"]), document("c", reasons=["min_words"])]
    steps = {step["step"]: step["documents"] for step in report_of(documents)["steps"]}
    assert steps == {"read": 3, "cleaned": 3, "filtered": 2, "kept": 1}


def test_samples_are_ten_from_all_over_the_run_whatever_its_order_and_tables():
    documents = many(2000)
    report = report_of(documents)
    again = report_of(*(documents[::-1][n : n + 70] for n in range(0, 2000, 70)))
    assert again["dropped"] == report["dropped"]
    assert again["set_aside"] == report["set_aside"]
    samples = report["dropped"]["min_words"]["samples"]
    by_name = {row["id"]: row for row in documents}
    assert len({sample["id"] for sample in samples}) == len(samples) == SAMPLES == 10
    assert all("min_words" in by_name[sample["id"]]["reasons"] for sample in samples)
    assert all(sample["excerpt"] == by_name[sample["id"]]["excerpt"] for sample in samples)
    places = [int(sample["id"].removeprefix("doc-")) for sample in samples]
    assert min(places) < 700
    assert max(places) > 1300


def test_a_rule_that_dropped_few_documents_shows_all_of_them():
    report = report_of([document("a"), document("b", reasons=["min_words"]), document("c", reasons=["min_words"])])
    assert {sample["id"] for sample in report["dropped"]["min_words"]["samples"]} == {"b", "c"}


def test_histograms_count_each_sampled_document_once():
    made = report_of(many())["histograms"]
    # Of the hundred that were not kept, 25 are empty and have no score.
    assert made["documents"] == {"kept": 100, "dropped": 75}
    for score in made["scores"]:
        assert len(score["edges"]) == len(score["kept"]) + 1 == len(score["dropped"]) + 1
        assert (sum(score["kept"]), sum(score["dropped"])) == (100, 75)
        assert score["edges"] == sorted(set(score["edges"]))


def test_a_document_stands_in_the_bin_of_its_score():
    texts = ["One two three four.", "One two three four five six.", "#" * 90 + " tag", " ".join(["w"] * 3_000_000)]
    made = report_of([document(str(n), text) for n, text in enumerate(texts)])["histograms"]
    scores = {score["score"]: score for score in made["scores"]}

    def filled(name):
        score = scores[name]
        return {score["edges"][n]: count for n, count in enumerate(score["kept"]) if count}

    assert filled("words") == {1: 1, 4: 1, 6: 1, scores["words"]["edges"][-2]: 1}
    # 90 signs in two words are far beyond the last bin.
    assert filled("# or ellipses for each word") == {0: 3, 0.475: 1}
    assert filled("lines that end a sentence (share)") == {0: 2, 0.95: 2}


def test_thresholds_are_those_of_the_recipe():
    made = report_of([document("a")], filters=FilterSection(preset=("gopher",), max_words="off"))["histograms"]
    thresholds = {score["score"]: score["thresholds"] for score in made["scores"]}
    assert thresholds["words"] == {"min_words": 50}
    assert thresholds["mean word length (characters)"] == {"min_mean_word_length": 3, "max_mean_word_length": 10}
    assert thresholds["lines up to 30 characters (share)"] == {}


def test_the_histograms_sample_is_bounded_and_the_same_whatever_the_tables(monkeypatch):
    monkeypatch.setattr(histograms_module, "SAMPLED_DOCUMENTS", 40)
    documents = many(1000)
    whole = report_of(documents)["histograms"]
    assert whole["documents"] == {"kept": 40, "dropped": 40}
    assert report_of(*(documents[::-1][n : n + 33] for n in range(0, 1000, 33)))["histograms"] == whole
    expected = numpy.mean([i % 17 + 1 for i in range(1000) if i % 8 > 3])
    words = whole["scores"][0]
    middles = numpy.add(words["edges"][1:], words["edges"][:-1]) / 2
    # A fair sample of 40 has a standard error of 0.8 words; bins are up to 4 wide.
    assert numpy.dot(middles, words["kept"]) / 40 == pytest.approx(expected, abs=3)


def test_the_picture_has_the_same_bytes_in_another_process(tmp_path):
    made = report_of(many())["histograms"]
    draw_histograms(made, tmp_path / "one.svg")
    program = (
        "from pathlib import Path; from hornbook.corpus.histogram_picture import draw_histograms;"
        f"draw_histograms({made!r}, Path({str(tmp_path / 'two.svg')!r}))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_the_picture_names_each_score_and_has_a_line_for_each_threshold(tmp_path):
    def lines(preset):
        made = report_of(many(), filters=FilterSection(preset=preset))["histograms"]
        draw_histograms(made, tmp_path / "histograms.svg")
        svg = (tmp_path / "histograms.svg").read_text()
        texts = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
        names = {"".join(text.itertext()) for text in texts}
        assert {score.name for score in SCORES} <= names
        assert {"kept (100 sampled)", "dropped (75 sampled)"} <= names
        return svg.count("stroke-dasharray")

    # One more stands in the legend.
    assert lines(()) == 1
    assert lines(("gopher",)) == 1 + 9


def test_a_corpus_of_nothing_can_be_drawn(tmp_path):
    made = Histograms(FilterSection()).finish()
    draw_histograms(made, tmp_path / "histograms.svg")
    assert made["documents"] == {"kept": 0, "dropped": 0}
    assert (tmp_path / "histograms.svg").stat().st_size > 0


def test_matplotlib_is_not_imported_before_it_draws_and_makes_no_global_figure(tmp_path):
    program = (
        "import sys; from pathlib import Path; from hornbook.corpus import report, histogram_picture, histograms;"
        "from hornbook.recipe_data import FilterSection; assert 'matplotlib' not in sys.modules;"
        "histogram_picture.draw_histograms(histograms.Histograms(FilterSection()).finish(), Path(sys.argv[1]));"
        "assert 'matplotlib' in sys.modules; assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "histograms.svg")], check=True)


PAGES = [
    document("a", labels=["clean"], is_wanted=True),
    document("b", labels=["clean"], is_wanted=True, reasons=["min_stop_words"]),
    document("c", labels=["other_language"], reasons=["min_stop_words"]),
    document("d", labels=["other_language"], reasons=["min_stop_words", "min_words"]),
    document("e", labels=["other_language"]),
    document("f", labels=["spam"]),
    document("g", labels=["spam"], reasons=["max_words"]),
    document("h", labels=["too_short"], reasons=["min_words"]),
    document("i", labels=["exact_duplicate"], reasons=["near_duplicate"]),
    document("j", labels=["exact_duplicate"], reasons=["duplicate"]),
    document("k", labels=["near_duplicate"]),
    document("l", labels=["clean"], is_wanted=True, reasons=["contaminated"]),
    document("m", labels=["clean"], is_wanted=True, reasons=["weight"]),
    document("n", reasons=["min_words"]),
]


@pytest.fixture
def quality():
    return report_of(PAGES[:5], PAGES[5:], deduplicate="minhash")["quality"]


@pytest.mark.parametrize(
    ("rule", "dropped", "precision", "recall"),
    [
        ("min_stop_words", 3, 2 / 3, 2 / 5),
        ("min_words", 2, 1.0, 1.0),
        ("max_words", 1, 1.0, None),
        ("max_symbol_to_word_ratio", 0, None, 0.0),
        ("duplicate", 1, 1.0, 1 / 2),
        ("near_duplicate", 1, 1.0, 0.0),
        ("empty", 0, None, None),
    ],
)
def test_precision_and_recall_of_a_rule_are_those_counted_by_hand(quality, rule, dropped, precision, recall):
    figures = quality["by_rule"][rule]
    assert figures["dropped"] == dropped
    assert figures["precision"] == (pytest.approx(precision) if precision is not None else None)
    assert figures["recall"] == (pytest.approx(recall) if recall is not None else None)


def test_recall_says_what_the_rule_is_meant_for(quality):
    assert quality["by_rule"]["min_stop_words"]["meant_for"] == {
        "other_language": {"documents": 3, "caught": 2},
        "spam": {"documents": 2, "caught": 0},
    }
    assert quality["by_rule"]["max_words"]["meant_for"] == {}


def test_deduplication_as_a_whole_may_take_one_kind_of_copy_for_the_other(quality):
    figures = quality["deduplication"]
    assert (figures["dropped"], figures["precision"]) == (2, 1.0)
    assert figures["recall"] == pytest.approx(2 / 3)
    off = report_of(PAGES[:5], deduplicate="none")["quality"]
    assert (off["deduplication"]["precision"], off["deduplication"]["recall"]) == (None, None)
    assert "duplicate" not in off["by_rule"]


def test_what_is_left_out_for_no_lack_of_quality_does_not_count_against_the_rules(quality):
    assert quality["pages"] == 11
    assert quality["precision"] == pytest.approx(6 / 7)
    assert quality["recall"] == pytest.approx(6 / 9)
    assert not {"contaminated", "weight"} & set(quality["by_rule"])


def test_without_labelled_pages_there_is_no_quality():
    assert report_of([document("a"), document("b", reasons=["min_words"])])["quality"] is None


def test_every_rule_that_the_table_names_can_be_applied_by_a_recipe():
    everything = FilterSection(preset=("gopher", "c4", "fineweb"), language="en")
    quality = Quality(CorpusSection(filters=everything, deduplicate="minhash"))
    quality.add(*parted([document("a", labels=["clean"], is_wanted=True)])[1:])
    assert set(MEANT_FOR) <= set(quality.finish()["by_rule"])
