"""Books and reports of runs that are unlike the recorded one: recipes that say little, stages that are missing, logs
with holes, texts that no font can set."""

import gzip
import json
import re
import shutil
from pathlib import Path

import pypdf
import pytest

from hornbook.book.build import TYPST_FILES, _planned, build_book, gather, typeset
from hornbook.book.figures import expected
from hornbook.book.glyphs import font_characters, settable
from hornbook.book.reference import REFERENCE_RUN
from hornbook.book.results import blocks
from hornbook.book.run_facts import Run, read_run
from hornbook.errors import UserError
from hornbook.recipe import load_recipe, recipe_to_toml

CHAPTERS = {path.name: path.read_text(encoding="utf-8") for path in sorted((TYPST_FILES / "chapters").glob("*.typ"))}
OPTIONAL = ("n_kv_heads", "head_dim", "d_ff", "rope_theta")


@pytest.fixture
def copied(tmp_path) -> Path:
    """The recorded run, to be changed."""
    return shutil.copytree(REFERENCE_RUN, tmp_path / "run")


def rewrite(path: Path, change) -> None:
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")


def rewrite_facts(run: Path, stage: str, **changed) -> None:
    path = run / stage / "stage.json"
    record = json.loads(path.read_text())
    record["facts"] |= changed
    path.write_text(json.dumps(record))


def rewrite_metrics(run: Path, stage: str, **changed) -> None:
    path = run / stage / "metrics.jsonl.gz"
    records = [json.loads(line) | changed for line in gzip.decompress(path.read_bytes()).decode().splitlines()]
    path.write_bytes(gzip.compress("".join(f"{json.dumps(record)}\n" for record in records).encode()))


def without_optional_fields(run: Path) -> None:
    rewrite(run / "recipe.toml", lambda text: re.sub(rf"(?m)^(?:{'|'.join(OPTIONAL)}) = .*\n", "", text))


def plain_run(stage: str, **facts) -> Run:
    """A run of one training stage, with two steps."""
    records = [{"step": n, "tokens": 10 * n, "loss_nats": 1.0, "grad_norm": 1.0} for n in (1, 2)]
    trained = {"steps": 2, "tokens": 20, "final_loss_nats": 1.0, "skipped_steps": 0, "training_seconds": 1.0}
    derived = {"total_minutes": 1.0, stage: {"first_loss_nats": 1.0, "largest_grad_norm": 1.0}}
    return Run({"name": "x", "seconds": {}, "derived": derived, stage: trained | facts}, {stage: records})


def test_chapters_ask_for_settings_that_every_recipe_has(tmp_path):
    path = tmp_path / "little.toml"
    training = "tokens = 4096\nglobal_batch_tokens = 1024\n"
    path.write_text(f'name = "little"\n[pretrain]\n{training}[finetune]\n{training}')
    path.write_text(recipe_to_toml(load_recipe(path)))
    shutil.copytree(REFERENCE_RUN / "pretrain", tmp_path / "run" / "pretrain")
    shutil.copy(REFERENCE_RUN / "summary.json", tmp_path / "run")
    path.rename(tmp_path / "run" / "recipe.toml")
    run = _planned(read_run(tmp_path / "run"), tmp_path / "run")
    asked = {(name, key) for name, text in CHAPTERS.items() for key in re.findall(r'"((?:recipe|plan)\.[\w.]+)"', text)}
    assert len(asked) > 20
    for name, key in asked:
        assert run.get(key) is not None, f"{name}: {key}"


@pytest.mark.slow
@pytest.mark.parametrize("origin", [False, True])
def test_a_recipe_that_says_little_of_its_model_has_its_book(copied, tmp_path, origin):
    without_optional_fields(copied)
    if origin:  # the shape of the model is another run's affair
        changes = {
            r"(?s)\[tokenizer\].*?(?=\[pretrain\])": "",
            r"(?m)^row_tokens = .*\n": "",
            r"(?m)^tokens = ": "row_tokens = 256\ntokens = ",
            r"\[pretrain\]": '[pretrain]\ninit_from = "base"',
        }
        for old, new in changes.items():
            rewrite(copied / "recipe.toml", lambda text, old=old, new=new: re.sub(old, new, text))
    build_book(copied, tmp_path / "book.pdf")
    assert len(pypdf.PdfReader(tmp_path / "book.pdf").pages) > 110


def test_the_book_of_a_run_without_pretraining_says_what_can_be_had(copied, tmp_path):
    shutil.rmtree(copied / "pretrain")
    rewrite(
        copied / "summary.json", lambda text: json.dumps({"stages": {"corpus": json.loads(text)["stages"]["corpus"]}})
    )
    with pytest.raises(UserError, match="--only results"):
        build_book(copied, tmp_path / "book.pdf")


@pytest.mark.parametrize("recipe", [b"name = \n", b'name = "caf\xe9"\n', b"seed = 1\n"])
def test_a_damaged_recipe_is_named_in_a_sentence(copied, recipe):
    (copied / "recipe.toml").write_bytes(recipe)
    with pytest.raises(UserError, match=r"recipe\.toml"):
        read_run(copied)


def test_what_the_fonts_lack_is_spelled_and_the_report_can_be_set(copied, tmp_path):
    rewrite(copied / "recipe.toml", lambda text: text.replace('description = "', 'description = "漢 \U0001f642 é '))
    rewrite_facts(copied, "evaluation", samples=["a\u001bb\u202ec \ufffd " + 400 * "x"])
    build_book(copied, tmp_path / "report.pdf", only_results=True)
    text = "".join(page.extract_text() for page in pypdf.PdfReader(tmp_path / "report.pdf").pages)
    assert r"\u{6f22} \u{1f642} é" in text
    assert r"a\u{1b}b\u{202e}c" in text.replace("\u200b", "")


def test_every_character_that_is_left_alone_can_be_set(tmp_path):
    """Typst's own DejaVu Sans Mono has what the file of the same name has that matplotlib brings."""
    text = " ".join(settable(chr(number)) for number in sorted(font_characters()))
    shutil.copy(TYPST_FILES / "layout.typ", tmp_path)
    data = {"run": {"name": "x"}, "text": text}
    (tmp_path / "data.json").write_text(json.dumps(data), encoding="utf-8")
    main = tmp_path / "main.typ"
    main.write_text('#import "layout.typ": *\n#show: laid-out.with(title: "x")\n#data.text\n\n#raw(data.text)')
    assert typeset(main, "a4").startswith(b"%PDF")


def test_long_runs_without_blanks_may_be_broken():
    assert settable(["short", 24 * "x"]) == ["short", 24 * "x"]
    broken = settable({"a_name_of_more_than_24_letters": 25 * "x" + " y"})
    assert broken == {"a_name_of_more_than_24_letters": 12 * "x" + "\u200b" + 12 * "x" + "\u200bx y"}


@pytest.mark.parametrize("changed", [{"loss_nats": None}, {"loss_nats": float("nan")}, {"grad_norm": None}])
def test_logs_without_losses_or_norms_have_their_report(copied, tmp_path, changed):
    rewrite_metrics(copied, "pretrain", **changed)
    if "loss_nats" in changed:
        rewrite_facts(copied, "pretrain", final_loss_nats=float("nan"), validation_bits_per_byte=float("nan"))
    folder = tmp_path / "book"
    main = gather(_planned(read_run(copied), copied), folder, only_results=True)
    assert "NaN" not in (folder / "data.json").read_text()
    assert typeset(main, "a4").startswith(b"%PDF")


@pytest.mark.parametrize("scores", [{}, {"pretrain": {}}])
def test_a_run_without_suites_has_no_scores_in_its_report(copied, scores):
    rewrite_facts(copied, "evaluation", scores=scores)
    found = blocks(read_run(copied), {"scores": None})
    assert "Scores before and after" not in [block.get("text") for block in found]


def test_a_classifier_is_measured_in_its_report():
    run = plain_run(
        "classify", test_accuracy=0.75, test_macro_f1=0.5, validation_accuracy=0.625, test_texts=4,
        classes=["ham", "spam"], confusion=[[2, 1], [0, 1]],
    )  # fmt: skip
    tables = [block for block in blocks(run, {}) if block["kind"] == "table"]
    cells = [cell for block in tables for row in block["rows"] for cell in row]
    assert {"75.0%", "50.0%", "62.5%", "loss at the end, nats per text"} <= set(cells)
    confusion = next(block for block in tables if block["columns"] == ["class", "ham", "spam"])
    assert confusion["rows"] == [["ham", "2", "1"], ["spam", "0", "1"]]


@pytest.mark.parametrize("validations", [None, [{"step": 2, "bits_per_byte": 1.0}]])
def test_the_caption_speaks_of_a_validation_only_where_there_is_one(validations):
    run = plain_run("preference")
    run.facts["derived"]["preference"]["validations"] = validations
    caption = next(b["caption"] for b in blocks(run, {"loss-preference"}) if b.get("name") == "loss-preference")
    assert ("and validation" in caption) == bool(validations)


def test_a_training_that_ended_early_is_held_against_the_beginning_of_its_band(full_run):
    run = read_run(full_run)
    half = len(run.metrics["pretrain"]) // 2
    run.metrics["pretrain"] = run.metrics["pretrain"][:half]
    figure, alt = expected(run, "pretrain")
    assert "6 of 10 windows" in alt
    end = run.need("recipe.pretrain.tokens") / 1e6
    assert max(figure.axes[0].lines[1].get_xdata()) == pytest.approx(end * 19.5 / 20)


def test_formulas_and_tables_are_written_as_they_are_meant():
    assert '"loss by @' not in CHAPTERS["17-budget.typ"]  # a string would be printed with its @
    exponent = re.search(r"alpha = .* = #w.*exponent.*", CHAPTERS["18-scaling.typ"])[0]
    spelled = re.sub(r'#w\("power_law\.(\w+)[^)]*\)', r"\1", exponent)
    assert spelled.startswith(r"alpha = (ln(above \/ above)) / (ln 4)")
