"""The book of the recorded run: built, read back, and held against the run's files."""

import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pypdf
import pytest
import typst

from hornbook.book.build import _planned, build_book, gather, typeset, with_spoken_equations
from hornbook.book.listings import SOURCE
from hornbook.book.reference import REFERENCE_RUN, record_run
from hornbook.book.results import headline_rows
from hornbook.book.run_facts import read_run
from hornbook.cli import main
from hornbook.errors import UserError


@pytest.fixture(scope="module")
def run():
    return _planned(read_run(REFERENCE_RUN), REFERENCE_RUN)


@pytest.fixture(scope="module")
def gathered(run, tmp_path_factory) -> Path:
    return gather(run, tmp_path_factory.mktemp("book"))


@pytest.fixture(scope="module")
def book(gathered) -> bytes:
    return typeset(gathered, "a4")


@pytest.fixture(scope="module")
def text(book) -> str:
    pages = pypdf.PdfReader(io.BytesIO(book)).pages
    return " ".join(" ".join(page.extract_text().split()) for page in pages)


@pytest.mark.slow
def test_it_is_a_whole_book_with_title_contents_and_tags(book, run):
    reader = pypdf.PdfReader(io.BytesIO(book))
    assert len(reader.pages) >= 130
    assert run.facts["name"] in reader.metadata.title
    assert len(reader.outline) > 25
    assert reader.trailer["/Root"]["/MarkInfo"]["/Marked"]
    assert "pdfuaid" in reader.xmp_metadata.stream.get_data().decode()


@pytest.mark.slow
def test_every_number_of_the_run_is_the_one_in_its_files(gathered, run, text):
    numbers = json.loads(typst.query(str(gathered), "<run-number>", field="value", root=str(gathered.parent)))
    assert len(numbers) > 60
    compact = text.replace(" ", "")
    for number in numbers:
        value = run.get(number["key"])
        shown = number["shown"]
        assert shown.replace(" ", "") in compact, number
        if isinstance(value, str):
            assert value == shown
            continue
        digits = shown.strip("−%").replace(",", "")
        n_decimals = len(digits.partition(".")[2])
        expected = abs(value) * (100 if shown.endswith("%") else 1)
        assert float(digits) == pytest.approx(expected, abs=0.5000001 * 10**-n_decimals), number


@pytest.mark.slow
def test_every_cell_of_the_results_stands_in_the_book(gathered, text):
    compact = re.sub(r"\s+", "", text)
    results = json.loads((gathered.parent / "data.json").read_text())["results"]
    numbers = [cell for block in results if block["kind"] == "table" for row in block["rows"] for cell in row
               if re.fullmatch(r"[\d.,±% ]+", cell)]  # fmt: skip
    assert len(numbers) > 100
    for cell in numbers:
        assert cell.replace(" ", "") in compact, cell


@pytest.mark.slow
def test_the_cover_has_the_headline_figures(text, run):
    for name, value in headline_rows(run):
        assert f"{name} {value}" in text


@pytest.mark.slow
def test_no_reference_and_no_glyph_is_missing(text):
    assert "??" not in text
    assert "\ufffd" not in text


@pytest.mark.slow
def test_the_same_run_gives_the_same_bytes(run, book, tmp_path):
    assert typeset(gather(run, tmp_path), "a4") == book


def test_a_renamed_function_stops_the_build_and_says_where(run, tmp_path):
    source = tmp_path / "hornbook"
    shutil.copytree(SOURCE, source, ignore=shutil.ignore_patterns("__pycache__"))
    path = source / "tokenizer" / "bpe.py"
    path.write_text(path.read_text().replace("def merge_pair(", "def join_pair("))
    with pytest.raises(UserError, match=r"04-tokens\.typ, line \d+: merge_pair: hornbook/tokenizer/bpe\.py"):
        gather(run, tmp_path / "book", source=source)


@pytest.mark.slow
def test_a_number_that_is_gone_stops_the_build_and_says_where(tmp_path):
    shutil.copytree(REFERENCE_RUN, tmp_path / "run")
    record = tmp_path / "run" / "pretrain" / "stage.json"
    record.write_text(record.read_text().replace('"final_loss_nats"', '"last_loss_nats"'))
    run = read_run(tmp_path / "run")
    run.metrics.pop("pretrain")
    folder = tmp_path / "book"
    with pytest.raises(UserError, match=r"chapters/\d\d-[\w-]+\.typ:\d+: .*the run has no"):
        typeset(gather(run, folder), "a4")


def test_the_report_is_short_and_there_for_a_run_without_evaluation(tmp_path):
    shutil.copytree(REFERENCE_RUN, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation", "export"))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    summary["stages"].pop("evaluation")
    (tmp_path / "run" / "summary.json").write_text(json.dumps(summary))
    build_book(tmp_path / "run", tmp_path / "report.pdf", only_results=True, paper="us-letter")
    pages = pypdf.PdfReader(tmp_path / "report.pdf").pages
    assert 3 <= len(pages) <= 15
    assert pages[0].mediabox.width == 612


@pytest.mark.slow
def test_a_run_that_is_only_pretrained_has_its_book_too(tmp_path):
    left_out = ("finetune", "evaluation", "export")
    shutil.copytree(REFERENCE_RUN, tmp_path / "run", ignore=shutil.ignore_patterns(*left_out))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    for stage in left_out:
        summary["stages"].pop(stage)
    (tmp_path / "run" / "summary.json").write_text(json.dumps(summary))
    build_book(tmp_path / "run", tmp_path / "book.pdf", paper="us-letter")
    assert len(pypdf.PdfReader(tmp_path / "book.pdf").pages) > 110


def test_the_report_as_markdown_has_the_same_tables_and_its_pictures(run, tmp_path):
    build_book(REFERENCE_RUN, tmp_path / "report.md", only_results=True, format="md")
    text = (tmp_path / "report.md").read_text()
    assert f"| parameters | {run.get('pretrain.parameters'):,} |" in text
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert len(pictures) > 5
    assert all((tmp_path / picture).is_file() for picture in pictures)


def test_the_book_as_markdown_is_refused():
    with pytest.raises(UserError, match="--only results"):
        build_book(REFERENCE_RUN, Path("book.md"), format="md")


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        build_book(tmp_path, tmp_path / "book.pdf")


def test_a_recorded_run_gives_the_same_facts(run, tmp_path):
    record_run(REFERENCE_RUN, tmp_path / "again")
    again = read_run(tmp_path / "again")
    # What is compressed already stays out of a second recording; all else is the same.
    assert again.facts["corpus"] == run.facts["corpus"]
    assert again.facts["recipe"] == run.facts["recipe"]


def test_torch_is_not_loaded():
    code = (
        "import sys, hornbook.book.build as b\n"
        "b.all_examples(); b._planned(b.read_run(b.REFERENCE_RUN), b.REFERENCE_RUN); print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize(
    ("chapter", "expected"),
    [
        ("so $x$ is", 'so #math.equation(block: false, alt: "x", $x$) is'),
        ("$ x #m(\"a\") $ <eq>", '#math.equation(block: true, alt: "x [1.5, 2]", $ x #m("a") $) <eq>'),
        ("`$x$`", "`$x$`"),
    ],
)  # fmt: skip
def test_equations_get_words_to_be_read_aloud(chapter, expected):
    assert with_spoken_equations(chapter, {"a": [1.5, 2]}) == expected


def test_the_command_writes_the_report_and_says_where(tmp_path, capsys):
    output = tmp_path / "report.pdf"
    assert main(["book", str(REFERENCE_RUN), "--only", "results", "-o", str(output)]) == 0
    assert capsys.readouterr().out == f"{output}\n"
    assert output.read_bytes().startswith(b"%PDF")
