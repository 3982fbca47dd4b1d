"""Files are found by path, folder, glob and URL, and opened as streams wherever they lie."""

import gzip
import os

import pytest

from hornbook.corpus import files
from hornbook.corpus.readers import read_documents
from hornbook.errors import RunFailed, UserError


def test_a_folder_or_glob_stands_for_the_readable_files_in_it_sorted(tmp_path):
    for name in ("b/2.txt", "a.jsonl.gz", ".hidden.txt", "picture.png", "b/1.html"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = files.find_files(str(tmp_path))
    assert files.places_of(found) == ["a.jsonl.gz", "b/1.html", "b/2.txt"]
    assert files.find_files(f"{tmp_path}/**/*.txt") == [tmp_path / "b/2.txt"]


@pytest.mark.parametrize("pattern", ["nowhere", "nowhere/*.txt", "picture.png"])
def test_a_pattern_without_readable_files_is_refused(tmp_path, pattern):
    (tmp_path / "picture.png").write_bytes(b"")
    with pytest.raises(UserError, match="Hornbook reads txt, jsonl"):
        files.find_files(f"{tmp_path}/{pattern}")


def test_a_file_is_found_once_however_many_links_lead_to_it(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b/1.txt").write_bytes(b"")
    (tmp_path / "b/again").symlink_to(tmp_path)
    (tmp_path / "a.txt").symlink_to(tmp_path / "b/1.txt")
    assert files.find_files(f"{tmp_path}/**/*.txt") == [tmp_path / "a.txt"]


def test_no_pattern_at_all_is_not_the_current_folder():
    with pytest.raises(UserError, match=r"^files: names no file"):
        files.find_files("")


def test_a_name_that_is_no_text_gives_ids_that_are(tmp_path):
    named = tmp_path / os.fsdecode(b"b\xff.txt")
    named.write_text("Once.")
    assert files.places_of(files.find_files(str(tmp_path))) == ["b?.txt"]


@pytest.mark.parametrize(
    ("location", "kind"),
    [
        ("https://host/a.b/CC-MAIN.warc.gz?token=a.txt", ".warc"),
        ("s3://bucket/x.warc.wet.gz", ".wet"),
        ("hf://datasets/a/b/c.jsonl.zst", ".jsonl"),
        ("s3://bucket/x.warc.wat.gz", ".wat"),
        ("https://host/", ""),
    ],
)
def test_the_kind_of_a_file_stands_in_its_name(location, kind):
    assert files.kind_of(location) == kind


def test_places_behind_urls_are_named_from_the_folder_they_share():
    urls = ["s3://bucket/books/old/1.txt", "s3://bucket/books/older/2.txt"]
    assert files.places_of(urls) == ["old/1.txt", "older/2.txt"]
    assert files.places_of(urls[:1]) == ["1.txt"]
    signed = "https://host/a.txt?key=secret"
    assert files.places_of([signed]) == ["a.txt"]


def test_on_one_processor_urls_are_refused_at_once(monkeypatch):
    monkeypatch.setattr(files, "processors", lambda: 1)
    with pytest.raises(UserError, match="read on two processors or more, and this process has one"):
        files.find_urls("https://host/a.txt")


def test_a_file_behind_a_web_server_is_read_in_pieces(store):
    data = gzip.compress(b"".join(b'{"text": "%d"}\n' % n for n in range(1000)))
    url = store.put("a.jsonl.gz", data)
    assert files.find_urls(url) == [url]
    documents = list(read_documents(url, "a", "text"))
    assert [document.text for document in documents] == [str(n) for n in range(1000)]
    assert any(method == "GET" and "bytes=" in ranges for method, _, ranges in store.requests)


@pytest.mark.parametrize("kind", ["parquet", "warc"])
def test_every_kind_of_file_is_read_from_behind_a_url(store, kind, tmp_path):
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.table({"text": ["Once"]}), path)
    else:
        header = b"WARC/1.0\r\nWARC-Type: conversion\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\n"
        path.write_bytes(header + b"Once\r\n\r\n")
    (document,) = read_documents(store.put(path.name, path.read_bytes()), "a", "text")
    assert document.text == "Once"


def test_a_bucket_is_listed_by_glob_and_by_folder(store, monkeypatch):
    for name in ("books/2.txt", "books/1.txt", "books/deep/3.jsonl", "books/picture.png", "other/4.txt"):
        store.put(f"bucket/{name}", b"Once")
    store.as_s3(monkeypatch)
    assert files.find_urls("s3://bucket/books/*.txt") == ["s3://bucket/books/1.txt", "s3://bucket/books/2.txt"]
    assert files.find_urls("s3://bucket/books") == [
        "s3://bucket/books/1.txt",
        "s3://bucket/books/2.txt",
        "s3://bucket/books/deep/3.jsonl",
    ]
    (document,) = read_documents("s3://bucket/books/1.txt", "1.txt", "text")
    assert document.text == "Once"


def test_a_url_without_readable_files_is_refused(store, monkeypatch):
    with pytest.raises(UserError, match=r"a\.txt cannot be read.*files:PATH"):
        files.find_urls(store.put("a.txt", b"x").replace("a.txt", "other/a.txt"))
    store.put("bucket/picture.png", b"x")
    store.as_s3(monkeypatch)
    with pytest.raises(UserError, match="no file there can be read"):
        files.find_urls("s3://bucket/")


def test_a_file_that_goes_away_while_it_is_read_fails_the_run_and_is_no_damaged_file(store):
    documents = read_documents(store.put("a.txt", b"A line.\n\n" * 2_000_000), "a", "text")
    next(documents)
    store.files.clear()
    with pytest.raises(RunFailed, match=r"a\.txt: the connection broke"):
        list(documents)


def test_the_folder_of_nobody_is_refused():
    with pytest.raises(UserError, match=r"~nobody.of.this.name/x.txt: there is no user of this name"):
        files.find_files("~nobody of this name/x.txt")
