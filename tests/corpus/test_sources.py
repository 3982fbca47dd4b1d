"""All sources become one lazy frame, in one order."""

import pyarrow
import pyarrow.parquet
import pytest

from hornbook.corpus.engine import load_daft
from hornbook.corpus.sources import RAW_SCHEMA, _with_raw_schema, read_sources
from hornbook.errors import UserError
from hornbook.recipe import CorpusSection, StoryworldSection

WORLD = StoryworldSection(stories=5, echoes=2, still_lives=2, puzzles=2, encyclopedia_passages=2, web_pages=3)


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


def test_an_unknown_source_is_refused_with_the_forms_there_are():
    with pytest.raises(UserError, match=r"'wikipedia' is not a source\. Use storyworld, files:"):
        rows(source="wikipedia")


def test_a_hub_that_cannot_be_reached_is_a_clear_error(monkeypatch):
    def unreachable(*_):
        raise OSError("no route to host")

    for reader in ("read_huggingface", "read_parquet", "read_json"):
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
    frame = load_daft().read_parquet(str(tmp_path / "a.parquet"))
    table = _with_raw_schema(frame, "hf://datasets/a/b", "story", False, 0).to_arrow()
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
