"""Documents that give a benchmark's items away are found and dropped, with a receipt; others are left alone."""

import gzip
import json
import random

import pyarrow
import pyarrow.parquet
import pytest

from hornbook.corpus.benchmarks import Benchmark, Item, read_benchmarks
from hornbook.corpus.curate import curate
from hornbook.corpus.decontaminate import Receipt, find_overlaps
from hornbook.corpus.deduplicate import plain_texts
from hornbook.corpus.passages import index_passages
from hornbook.recipe_data import CleaningSection, CorpusSection, StoryworldSection
from hornbook.storyworld.corpus import write_documents
from hornbook.storyworld.questions import held_out_questions

WORLD = StoryworldSection(
    stories=600, echoes=100, inventories=100, still_lives=300, puzzles=0, sums=0, encyclopedia_passages=200, web_pages=0
)
WORDS_BETWEEN_EDITS = 16


def found(texts: list[str], benchmarks: list[Benchmark]) -> list[set[tuple[str, str]]]:
    """For each text the benchmarks and items that it gives away."""
    passages = index_passages(benchmarks)
    return [
        {
            (benchmarks[number].name, benchmarks[number].items[item].id)
            for number, item in (passages.item[overlap["passage"]] for overlap in overlaps)
        }
        for overlaps in find_overlaps(plain_texts(texts), passages)
    ]


def lightly_edited(rng: random.Random, text: str) -> str:
    """One word in every sixteen, and at least one, replaced, dropped or followed by another; and no capitals."""
    words = text.lower().split()
    for _ in range(max(1, len(words) // WORDS_BETWEEN_EDITS)):
        place = rng.randrange(len(words))
        words[place : place + 1] = rng.choice((["surely"], [], [words[place], "indeed"]))
    return " ".join(words)


def suite(name: str, n: int, section: StoryworldSection = WORLD) -> Benchmark:
    questions = held_out_questions(name, n, section)
    return Benchmark(name, [Item(str(i), (q.context, q.question)) for i, q in enumerate(questions)])


@pytest.fixture(scope="module")
def clean() -> list[str]:
    return [document.text for document in write_documents(WORLD)]


@pytest.fixture(scope="module")
def comprehension() -> Benchmark:
    return suite("comprehension", 200)


def test_the_worlds_own_stories_give_nothing_away(clean, comprehension):
    assert not any(found(clean, [comprehension, suite("facts", 1000)]))


def test_every_item_that_stands_in_a_document_is_found(clean, comprehension):
    planted = [f"{clean[n]}\n\n{item.passages[0]}\n{clean[-n]}" for n, item in enumerate(comprehension.items)]
    assert found(planted, [comprehension]) == [{("comprehension", item.id)} for item in comprehension.items]


def test_nearly_every_item_is_found_that_was_lightly_edited(clean, comprehension):
    rng = random.Random(1)
    planted = [
        f"{clean[n]}\n\n{lightly_edited(rng, item.passages[0])}\n{clean[-n]}"
        for n, item in enumerate(comprehension.items)
    ]
    hits = [
        ("comprehension", item.id) in f
        for item, f in zip(comprehension.items, found(planted, [comprehension]), strict=True)
    ]
    assert sum(hits) >= 0.95 * len(hits)


def test_half_of_an_item_and_words_scattered_over_a_document_are_no_copy(comprehension):
    story = comprehension.items[0].passages[0].split()
    half = " ".join(story[: len(story) // 2 - 5])
    scattered = " ".join(" ".join([*story[i : i + 8], *["and so on"] * 12]) for i in range(0, len(story), 8))
    assert found([half, scattered], [comprehension]) == [set(), set()]


def test_a_question_with_another_number_is_another_question():
    reasoning = suite("reasoning", 1000)
    sums = [item for item in reasoning.items if "bags of" in item.passages[1]]
    texts = [item.passages[1] for item in sums]
    other = [text.replace(number, str(int(number) % 9 + 1), 1) for text in texts for number in [text.split()[2]]]
    hits = found([*texts, *other], [reasoning])
    assert all(hits[: len(texts)])
    # Some of the changed ones are held out as well.
    held_out = {text.lower() for text in texts}
    assert not any(hit for text, hit in zip(other, hits[len(texts) :], strict=True) if text.lower() not in held_out)


def test_one_word_of_a_short_question_may_be_edited(clean):
    questions = [
        "Why does an old lighthouse keeper count his lamps twice?",
        "Name the river that turned back after the great flood of spring.",
    ]
    benchmark = Benchmark("quiz", [Item(str(n), (text,)) for n, text in enumerate(questions)])
    rng = random.Random(2)
    planted = [f"{clean[n]} {lightly_edited(rng, questions[n % 2])} {clean[-n]}" for n in range(40)]
    assert found(planted, [benchmark]) == [{("quiz", str(n % 2))} for n in range(40)]


def test_where_another_item_differs_in_one_word_a_short_question_must_stand_as_it_is():
    question = "How many legs does a healthy grown {} usually have?"
    benchmark = Benchmark("quiz", [Item(kind, (question.format(kind),)) for kind in ("spider", "beetle")])
    texts = [question.format(kind) for kind in ("spider", "crab")]
    assert found(texts, [benchmark]) == [{("quiz", "spider")}, set()]


def test_options_of_one_item_that_differ_in_one_word_are_found_with_an_edit():
    options = tuple(f"The price of bread in that town would slowly {verb} again" for verb in ("rise", "fall"))
    benchmark = Benchmark("quiz", [Item("1", options)])
    assert found([options[0].replace("town", "village")], [benchmark]) == [{("quiz", "1")}]


def test_short_passages_and_what_many_items_share_prove_nothing():
    template = "Which of the following is the best reason for what the person in the story did on that day"
    benchmark = Benchmark("quiz", [Item(str(n), (template, f"Why number {n}?", "Yes.")) for n in range(30)])
    many = Benchmark("many", [Item(str(n), (f"{template} number {n}",)) for n in range(30)])
    assert found(["Why number 7? Yes.", ""], [benchmark]) == [set(), set()]
    assert found([template], [many]) == [set()]


def test_case_punctuation_and_line_breaks_hide_nothing():
    text = "The old ferryman counted seven silver coins before he untied the rope and pushed off."
    benchmark = Benchmark("quiz", [Item("1", (text,))])
    copy = text.upper().replace(" ", "\n").replace("COINS", '"coins",')
    assert found([copy], [benchmark]) == [{("quiz", "1")}]


def test_the_receipt_says_which_document_gave_away_which_item(tmp_path, write_jsonl, sound_text):
    question = (
        "A ferry carries 9 carts in one crossing and makes 4 crossings a day; how many carts cross the river in a week?"
    )
    (tmp_path / "quiz.jsonl").write_text(
        json.dumps({"question": "Too short?", "gold": 1})
        + "\n"
        + json.dumps({"question": question, "options": ["7", "9"]})
        + "\n"
    )
    texts = [sound_text(n) for n in range(50)]
    texts[20] = f"{sound_text(200)} {question.lower()} Nobody knew."
    source = write_jsonl("train.jsonl", texts)
    report = curate(
        CorpusSection(source=f"files:{source}", validation_fraction=0.2, deduplicate="exact"),
        StoryworldSection(),
        tmp_path / "out",
        read_benchmarks([f"files:{tmp_path}/quiz.jsonl"]),
    )
    assert report["dropped"]["contaminated"]["documents"] == 1
    receipt = json.loads((tmp_path / "out" / "decontamination.json").read_text())
    assert receipt["benchmarks"] == [{"name": "quiz.jsonl", "items": 2, "items_looked_for": 1, "items_found": 1}]
    (removed,) = receipt["removed"]
    assert removed["document"] == "train.jsonl:21"
    assert (removed["benchmark"], removed["item"], removed["share_found"]) == ("quiz.jsonl", "2", 1.0)
    assert removed["overlap"].startswith("a ferry carries 9 carts in one crossing")
    dropped = pyarrow.parquet.read_table(tmp_path / "out" / "dropped-00000.parquet").to_pylist()
    assert [(row["id"], row["reasons"]) for row in dropped] == [("train.jsonl:21", ["contaminated"])]


def test_what_cleaning_does_to_documents_it_does_to_passages(tmp_path, write_jsonl, sound_text):
    question = "Mara has $5.40 + $20 in her_purse, and a hat costs 3/4 of it: how much is left <after> she buys 1 hat?"
    (tmp_path / "quiz.jsonl").write_text(json.dumps({"question": question}))
    source = write_jsonl("train.jsonl", [*(sound_text(n) for n in range(50)), f"{sound_text(200)} {question} Go on."])
    for preset in ("classic", "language_model", "none"):
        report = curate(
            CorpusSection(
                source=f"files:{source}",
                validation_fraction=0.2,
                deduplicate="exact",
                cleaning=CleaningSection(preset=preset),
            ),
            StoryworldSection(),
            tmp_path / preset,
            read_benchmarks([f"files:{tmp_path}/quiz.jsonl"]),
        )
        assert report["dropped"]["contaminated"]["documents"] == 1


def test_the_receipt_tells_files_of_one_name_and_documents_of_one_id_apart(tmp_path):
    questions = (
        "How many sacks did the old miller carry over the bridge that day?",
        "Who of the three sisters has the smallest garden behind the mill?",
    )
    for folder, question in zip("ab", questions, strict=True):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "test.jsonl").write_text(json.dumps({"question": question}))
    benchmarks = read_benchmarks([f"files:{tmp_path}/*/test.jsonl"])
    passages = index_passages(benchmarks)
    receipt = Receipt(benchmarks, passages)
    overlaps = find_overlaps(plain_texts([questions[0], f"Well: {questions[0]}"]), passages)
    receipt.add(pyarrow.table({"id": ["same", "same"], "source": ["s", "s"], "overlaps": overlaps}))
    finished = receipt.finish()
    assert [(entry["name"], entry["items_found"]) for entry in finished["benchmarks"]] == [
        ("a/test.jsonl", 1),
        ("b/test.jsonl", 0),
    ]
    assert finished["documents_removed"] == 2


@pytest.mark.slow
def test_real_benchmarks_are_found_in_real_stories_and_nowhere_else(real_data):
    with gzip.open(real_data / "pretrain/tinystories/train.jsonl.gz", "rt", encoding="utf-8") as file:
        stories = [json.loads(line)["text"] for line in file]
    names = (
        "arc_challenge",
        "arc_easy",
        "boolq",
        "hellaswag_val_1000",
        "lambada_openai",
        "mmlu_test",
        "openbook_qa",
        "piqa",
    )
    benchmarks = read_benchmarks(f"files:{real_data}/benchmarks/{name}.jsonl.gz" for name in names)
    assert len(stories) > 10_000
    assert not any(found(stories, benchmarks))
    texts = sorted({text for benchmark in benchmarks for item in benchmark.items for text in item.passages})
    lengths = [len(text.split()) for text in plain_texts(texts).to_pylist()]
    rng = random.Random(1)
    # Of eight words an edit leaves seven, which prove something only where they stand on both sides of it.
    for fewest, most, least_edited in ((8, 10_000, 0.95), (9, 15, 0.95), (8, 8, 0.65)):
        chosen = rng.sample([t for t, n in zip(texts, lengths, strict=True) if fewest <= n <= most], 1000)
        for least, passages in ((1.0, chosen), (least_edited, [lightly_edited(rng, text) for text in chosen])):
            planted = [f"{stories[n]}\n{text}\n{stories[-n]}" for n, text in enumerate(passages)]
            hits = [bool(items) for items in found(planted, benchmarks)]
            assert sum(hits) >= least * len(hits), (fewest, most, least)
