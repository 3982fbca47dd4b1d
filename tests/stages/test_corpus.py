"""The corpus stage writes its shards and report, says what happened, and returns the headline facts."""

import io
import json
from dataclasses import replace

import pyarrow.parquet
import pytest
from rich.console import Console

from hornbook.recipe import load_recipe
from hornbook.run_directory import RunDirectory
from hornbook.stages.context import StageContext
from hornbook.stages.corpus import questions_looked_for, run
from hornbook.storyworld.questions import held_out_questions


@pytest.fixture
def context(tmp_path, write_recipe):
    sizes = {"stories": 120, "web_pages": 120, "echoes": 5, "still_lives": 5, "puzzles": 5, "sums": 5}
    sizes["encyclopedia_passages"] = 5
    overrides = {f"storyworld.{name}": size for name, size in sizes.items()}
    overrides["corpus.validation_fraction"] = 0.1
    directory = RunDirectory(tmp_path / "run")
    stage = directory.stage("corpus")
    stage.begin("fingerprint")
    recipe = load_recipe(write_recipe(), overrides)
    return StageContext(recipe, directory, stage, Console(file=io.StringIO(), width=100))


def test_the_facts_are_those_of_the_shards(context):
    facts = run(context)
    table = pyarrow.parquet.read_table(sorted(context.stage.path.glob("documents-*.parquet")))
    rows = table.to_pylist()
    validation = [row for row in rows if row["split"] == "validation"]
    known = [row for row in validation if row["generator_bits"]]
    assert facts["documents"] == len(rows)
    assert facts["documents_bytes"] == sum(row["n_bytes"] for row in rows)
    assert facts["validation_documents"] == len(validation) > 0
    assert facts["validation_documents_without_generator_bits"] == len(validation) - len(known)
    assert facts["generator_bits_per_byte"] == pytest.approx(
        sum(row["generator_bits"] for row in known) / sum(row["n_bytes"] for row in known)
    )
    assert facts["documents_read"] == (facts["documents"] + facts["documents_dropped"] + facts["documents_set_aside"])
    assert sum(facts["dropped_by_rule"].values()) >= facts["documents_dropped"]
    assert json.loads(json.dumps(facts)) == facts


def test_the_stage_can_be_declared_done_and_found_intact(context):
    context.stage.finish("fingerprint", 1.0, run(context))
    assert context.stage.is_done("fingerprint")
    assert set(context.stage.record()["files"]) == {
        "documents-00000.parquet",
        "dropped-00000.parquet",
        "decontamination.json",
        "histograms.svg",
        "report.json",
    }


def test_the_terminal_shows_each_step_and_reason_and_how_well_the_rules_did(context):
    run(context)
    shown = context.console.file.getvalue()
    for words in ("read", "kept", "dropped: duplicate", "dropped: min_stop_words", "precision", "MB"):
        assert words in shown
    rules = json.loads((context.stage.path / "report.json").read_text())["quality"]["by_rule"]
    row = next(line for line in shown.splitlines() if "dropped: min_stop_words" in line)
    assert f"{rules['min_stop_words']['precision']:.1%}" in row
    assert row.split()[-2] == f"{rules['min_stop_words']['recall']:.1%}"
    assert f"{context.stage.path / 'histograms.svg'}\n" in shown


def test_without_pages_whose_answer_is_known_no_precision_is_shown(context):
    world = context.recipe.storyworld.model_copy(update={"web_pages": 0})
    run(replace(context, recipe=context.recipe.model_copy(update={"storyworld": world})))
    shown = context.console.file.getvalue()
    assert "kept" in shown
    assert "precision" not in shown


def test_no_document_is_left_that_gives_away_a_question_of_the_suites(context):
    facts = run(context)
    receipt = json.loads((context.stage.path / "decontamination.json").read_text())
    assert [entry["name"] for entry in receipt["benchmarks"]] == ["comprehension", "reasoning", "facts"]
    assert facts["dropped_by_rule"].get("contaminated", 0) == receipt["documents_removed"]
    questions = {q.question for q in held_out_questions("reasoning", 200, context.recipe.storyworld)}
    table = pyarrow.parquet.read_table(sorted(context.stage.path.glob("documents-*.parquet")))
    assert not [text for text in table["text"].to_pylist() if any(question in text for question in questions)]


def test_asking_a_few_more_questions_leaves_the_corpus_as_it_is(write_recipe):
    few, more, many = (load_recipe(write_recipe(), {"evaluate.questions_per_suite": n}) for n in (200, 1000, 1001))
    assert [questions_looked_for(recipe) for recipe in (few, more, many)] == [1000, 1000, 2000]
