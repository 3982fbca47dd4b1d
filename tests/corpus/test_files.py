"""Documents come out of every kind of file; what cannot be read is set aside with place and reason."""

import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from hornbook.corpus import files
from hornbook.errors import UserError

TEXTS = ["One day, Ann found a hat.", "Zoë said: “Hé!”\n\nThe end."]
LINES = "".join(json.dumps({"text": text, "n": 1}) + "\n" for text in TEXTS).encode()


def read(path: Path, text_field: str = "text") -> list[files.RawDocument]:
    return list(files.read_documents(path, path.name, text_field))


def write(path: Path, data: bytes) -> Path:
    if path.suffix == ".gz":
        data = gzip.compress(data)
    if path.suffix == ".zst":
        data = pyarrow.compress(data, codec="zstd", asbytes=True)
    path.write_bytes(data)
    return path


def fates(documents: list[files.RawDocument]) -> list[tuple[str, str]]:
    return [(document.id, document.problem or document.text) for document in documents]


@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", LINES),
        ("a.json", json.dumps([{"text": text} for text in TEXTS]).encode()),
        ("a.txt", "\n<|endoftext|>\n".join(TEXTS).encode()),
    ],
)
def test_the_same_texts_come_out_of_every_kind_of_file(tmp_path, name, data, compression):
    path = write(tmp_path / (name + compression), data)
    documents = read(path)
    assert [document.text.strip() for document in documents] == TEXTS
    assert documents[0].id == f"{path.name}:1"


def test_a_column_of_a_parquet_file_is_read(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"story": [*TEXTS, None], "n": [1, 2, 3]}), tmp_path / "a.parquet")
    assert fates(read(tmp_path / "a.parquet", "story")) == [
        ("a.parquet:1", TEXTS[0]),
        ("a.parquet:2", TEXTS[1]),
        ("a.parquet:3", "text_is_not_a_string"),
    ]


def test_an_html_file_is_one_document_in_whatever_encoding_it_has(tmp_path):
    page = '<html><head><meta charset="iso-8859-1"></head><body>Zoë</body></html>'
    (document,) = read(write(tmp_path / "a.html", page.encode("latin-1")))
    assert document.is_html
    assert document.text == page


def test_lines_that_cannot_be_read_are_set_aside_with_place_and_reason(tmp_path):
    data = b'{"text": "good"}\n{"text": \n\n{"text": 5}\n[1]\n{"other": "x"}\n'
    data += b'{"text": "\xff"}\n{"text": "good"}\n'
    assert fates(read(write(tmp_path / "a.jsonl", data))) == [
        ("a.jsonl:1", "good"),
        ("a.jsonl:2", "not_json"),
        ("a.jsonl:4", "text_is_not_a_string"),
        ("a.jsonl:5", "no_text_field"),
        ("a.jsonl:6", "no_text_field"),
        ("a.jsonl:7", "not_utf8"),
        ("a.jsonl:8", "good"),
    ]


def test_a_monstrous_line_is_set_aside_and_the_next_one_read(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_DOCUMENT_BYTES", 100)
    monster = json.dumps({"text": "x" * 1000}).encode()
    path = write(tmp_path / "a.jsonl", monster + b'\n{"text": "good"}\n')
    assert fates(read(path)) == [("a.jsonl:1", "too_large"), ("a.jsonl:2", "good")]


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.parquet"])
def test_a_damaged_file_is_set_aside_after_what_could_be_read_of_it(tmp_path, name):
    (tmp_path / name).write_bytes(gzip.compress(LINES * 1000)[:-300] if name.endswith("gz") else b"no such thing")
    documents = read(tmp_path / name)
    assert fates(documents)[-1] == (name, "damaged_file")
    assert all(document.text in TEXTS for document in documents[:-1])


def test_half_a_surrogate_pair_does_not_stop_the_reading(tmp_path):
    (document,) = read(write(tmp_path / "a.jsonl", b'{"text": "a\\ud800b"}\n'))
    assert document.text == "a?b"


def test_a_long_text_file_is_cut_at_empty_lines_and_nothing_is_lost(tmp_path):
    text = "".join(f"Paragraph {n} of a long book, with several words in it.\n\n" for n in range(2000))
    documents = read(write(tmp_path / "book.txt", text.encode()))
    assert "".join(document.text for document in documents).strip() == text.strip()
    assert len(documents) > 5
    assert all(document.text.rstrip().endswith(".") for document in documents)
    assert max(len(document.text) for document in documents) < 1.1 * files.PART_BYTES


def test_a_file_without_the_text_field_is_refused_with_the_fields_it_has(tmp_path):
    path = write(tmp_path / "a.jsonl", LINES)
    with pytest.raises(UserError, match=r"a\.jsonl: has no field 'body'; it has 'text', 'n'.*corpus\.text_field"):
        files.check_text_field(path, "body")
    files.check_text_field(path, "text")
    files.check_text_field(write(tmp_path / "a.txt", b"text"), "body")
    files.check_text_field(write(tmp_path / "b.jsonl", b"\xff\n" + LINES), "text")


def test_a_folder_or_glob_stands_for_the_readable_files_in_it_sorted(tmp_path):
    for name in ("b/2.txt", "a.jsonl.gz", ".hidden.txt", "picture.png", "b/1.html"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = files.find_files(str(tmp_path))
    assert [files.place_of(path, found) for path in found] == ["a.jsonl.gz", "b/1.html", "b/2.txt"]
    assert files.find_files(f"{tmp_path}/**/*.txt") == [tmp_path / "b/2.txt"]


@pytest.mark.parametrize("pattern", ["nowhere", "nowhere/*.txt", "picture.png"])
def test_a_pattern_without_readable_files_is_refused(tmp_path, pattern):
    (tmp_path / "picture.png").write_bytes(b"")
    with pytest.raises(UserError, match="Hornbook reads txt, jsonl"):
        files.find_files(f"{tmp_path}/{pattern}")
