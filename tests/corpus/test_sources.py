"""All sources become one lazy frame, in one order."""

import subprocess
import sys
import threading

import pyarrow
import pyarrow.parquet
import pytest

from hornbook.corpus import files, sources
from hornbook.corpus.engine import load_daft
from hornbook.corpus.raw import RawDocument
from hornbook.corpus.sources import RAW_SCHEMA, read_in_turn, read_sources
from hornbook.errors import UserError
from hornbook.recipe_data import CorpusSection, StoryworldSection

WORLD = StoryworldSection(
    stories=5, echoes=2, inventories=2, still_lives=2, puzzles=2, sums=2, encyclopedia_passages=2, web_pages=3
)


def rows(**settings):
    table = read_sources(CorpusSection(**settings), WORLD).to_arrow()
    return table.sort_by("index").to_pylist()


def test_sources_follow_each_other_and_validation_comes_first(write_jsonl):
    a, b, v = (write_jsonl(f"{name}.jsonl", [f"{name}1", f"{name}2"]) for name in "abv")
    found = rows(source=(f"files:{b}", f"files:{a}"), validation_source=f"files:{v}")
    assert [row["text"] for row in found] == ["v1", "v2", "b1", "b2", "a1", "a2"]
    assert [row["for_validation"] for row in found] == [True, True, False, False, False, False]
    assert len({row["index"] for row in found}) == 6


def test_files_of_a_folder_come_in_the_order_of_their_names(tmp_path, write_jsonl):
    for name in ("c", "a", "b"):
        write_jsonl(f"{name}.jsonl", [f"{name}{n}" for n in range(1500)])
    found = rows(source=f"files:{tmp_path}")
    assert [row["text"] for row in found] == [f"{name}{n}" for name in "abc" for n in range(1500)]
    assert found[0]["id"] == "a.jsonl:1"


def test_every_document_carries_the_weight_of_its_source_and_is_read_once(write_jsonl):
    a, b, v = (f"files:{write_jsonl(f'{name}.jsonl', [f'{name}1', f'{name}2'])}" for name in "abv")
    found = rows(source=(a, b), weights=(0.5, 3.0), validation_source=v)
    assert [(row["text"], row["weight"]) for row in found] == [
        *[("v1", 1.0), ("v2", 1.0)],
        *[("a1", 0.5), ("a2", 0.5)],
        *[("b1", 3.0), ("b2", 3.0)],
    ]
    assert {row["weight"] for row in rows(source=(a, b))} == {1.0}


def test_files_of_every_kind_are_one_source_read_in_order(tmp_path, store):
    (tmp_path / "1.txt").write_text("one")
    (tmp_path / "2.html").write_text("<p>two")
    (tmp_path / "3.jsonl").write_text('{"text": "three"}\nno json\n')
    found = rows(source=(f"files:{tmp_path}", store.put("4.txt", b"four")))
    assert [row["text"] for row in found] == ["one", "<p>two", "three", "", "four"]
    assert [row["id"] for row in found] == ["1.txt:1", "2.html", "3.jsonl:1", "3.jsonl:2", "4.txt:1"]
    assert [row["is_html"] for row in found] == [False, True, False, False, False]
    assert found[3]["problem"] == "not_json"


def test_the_tasks_of_a_source_are_read_by_another_process_that_got_them_pickled(tmp_path, write_jsonl):
    """As Ray does it: no open file and no object of this process goes along."""
    from daft import pickle

    write_jsonl("a.jsonl", ["one", "two"])
    (tmp_path / "b.txt").write_text("three")
    parts = sources._parts_of(f"files:{tmp_path}", "text", WORLD) + sources._parts_of("storyworld", "text", WORLD)
    source = sources._parts_source(parts, {"for_validation": False, "source": "x", "weight": 1.0}, 0)
    (tmp_path / "source.pickle").write_bytes(pickle.dumps(source))
    done = subprocess.run(
        [sys.executable, "-c", READS_PICKLED_TASKS, str(tmp_path / "source.pickle")],
        check=True, capture_output=True, text=True, cwd="/",
    )  # fmt: skip
    assert done.stdout == f"[['one', 'two'], ['three'], {WORLD.web_pages}]\n"


READS_PICKLED_TASKS = """
import asyncio, sys
from hornbook.corpus.engine import load_daft
load_daft()
from daft import pickle

async def read():
    source = pickle.loads(open(sys.argv[1], "rb").read())
    tasks = [pickle.loads(pickle.dumps(task)) async for task in source.get_tasks(None)]
    found = [[text async for batch in task.read() for text in batch.to_pydict()["text"]] for task in tasks]
    print([found[0], found[1], len(found[3])])

asyncio.run(read())
"""


@pytest.mark.skipif(files.processors() == 1, reason="one processor reads one part at a time")
def test_one_slow_part_does_not_keep_the_others_waiting():
    """Two parts that each wait for the other to have begun: read in turn, neither would ever end."""
    barrier = threading.Barrier(2, timeout=20)

    def part():
        barrier.wait()
        yield RawDocument("a", "text")

    source = sources._parts_source([part, part], {"for_validation": False, "source": "x", "weight": 1.0}, 0)
    assert source.read().count_rows() == 2


def test_an_unknown_source_is_refused_with_the_forms_there_are():
    with pytest.raises(UserError, match=r"'wikipedia' is not a source\. Use storyworld, files:"):
        rows(source="wikipedia")


def test_a_hub_that_cannot_be_reached_is_a_clear_error(monkeypatch):
    def unreachable(*_):
        raise OSError("no route to host")

    monkeypatch.setattr(files, "processors", lambda: 2)
    for reader in ("read_huggingface", "from_glob_path"):
        monkeypatch.setattr(load_daft(), reader, unreachable)
    for source in ("hf://datasets/a/b", "hf://datasets/a/b/*.parquet", "hf://datasets/a/b/c.jsonl"):
        with pytest.raises(UserError, match=r"cannot be read \(no route to host\).*files:PATH"):
            rows(source=source)


def test_a_hub_data_set_without_the_text_field_is_refused(monkeypatch):
    monkeypatch.setattr(load_daft(), "read_huggingface", lambda name: load_daft().from_pydict({"story": ["x"]}))
    with pytest.raises(UserError, match="has no field 'text'; it has 'story'"):
        rows(source="hf://datasets/a/b")


def test_a_frame_that_daft_reads_gets_the_columns_of_every_other_source(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"story": ["one", None, "three"]}), tmp_path / "a.parquet")
    origin = {"for_validation": False, "source": "hf://datasets/a/b", "weight": 1.0}
    frame = load_daft().read_parquet(str(tmp_path / "a.parquet"))
    table = sources._with_raw_schema(frame, "story", origin, 0).to_arrow()
    assert table.column_names == RAW_SCHEMA.names
    assert table["text"].to_pylist() == ["one", "", "three"]
    assert table["problem"].to_pylist() == [None, "text_is_not_a_string", None]
    assert table["index"].to_pylist() == [0, 1, 2]


def test_the_storyworld_gives_stories_with_their_bits_and_pages_with_their_labels():
    found = rows()
    stories = [row for row in found if not row["is_html"] and row["id"].startswith("story")]
    pages = [row for row in found if row["is_html"]]
    assert len(stories) == WORLD.stories
    assert all(row["text"] == row["expected"] and row["bits"] > 0 for row in stories)
    assert len(pages) == WORLD.web_pages
    assert all(row["labels"] for row in pages)
    assert {row["expected"] for row in pages}.isdisjoint(row["text"] for row in stories)


def test_documents_read_in_turn_are_those_of_one_query(tmp_path, write_jsonl):
    names = [f"files:{write_jsonl(f'{letter}.jsonl', [f'{letter} {n}' for n in range(700)])}" for letter in "abc"]
    corpus = CorpusSection(source=names[:2], weights=[2, 0.5], validation_source=names[2:])
    at_once = read_sources(corpus, WORLD).to_arrow().sort_by("index")
    in_turn = [row for frame in read_in_turn(corpus, WORLD) for row in frame.to_pylist()]
    assert len(in_turn) == 2100
    assert in_turn == at_once.to_pylist()
