"""Evaluation: the three suites before and after fine-tuning, and what the model writes on its own."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from hornbook.errors import UserError
from hornbook.evaluation.evaluate import Answered, answer_questions, suite_scores
from hornbook.evaluation.picture import draw_scores
from hornbook.evaluation.run_benchmarks import Asking, ask, read_tasks
from hornbook.evaluation.run_benchmarks import score_table as benchmark_table
from hornbook.evaluation.scores import SuiteScores, score_table
from hornbook.evaluation.tasks import as_chat, as_text
from hornbook.inference.engine import Engine
from hornbook.inference.load import EngineOptions, find_model, load_engine
from hornbook.recipe import Recipe, load_recipe
from hornbook.run_directory import RunDirectory, open_run, write_json
from hornbook.stages.context import StageContext
from hornbook.storyworld.questions import held_out_questions

TRANSCRIPTS_KEPT = 20
_STAGES_ASKED = ("pretrain", "finetune", "preference", "reinforce")


def run(context: StageContext) -> dict[str, Any]:
    """Score every model of the run, and write one json file for each suite and stage.

    A base model is asked in plain text, a fine-tuned one in chat. Returns the scores, and samples of the base model.
    """
    scores, samples = {}, []
    asks = _read_benchmarks(context.recipe)
    with context.console.status("asking questions"):
        for stage in _stages_with_models(context.run):
            engine = _engine(context.run, stage)
            scores[stage] = _score(engine, context.recipe, stage, context.stage.path)
            if stage == "pretrain":
                samples = write_samples(engine, context.recipe)
    write_json(context.stage.path / "samples.json", samples)
    if context.recipe.evaluate.suites:
        context.console.print(score_table(scores))
    facts = {"scores": scores, "samples": samples, "questions_per_suite": context.recipe.evaluate.questions_per_suite}
    return facts | ({"benchmarks": _ask_benchmarks(context, asks)} if asks else {})


def _read_benchmarks(recipe: Recipe) -> dict[str, list[Any]]:
    """The items of the recipe's benchmarks, read first so that a missing file is told before anything is computed."""
    section = recipe.evaluate
    if not section.benchmarks:
        return {}
    return read_tasks(Asking(",".join(section.benchmarks), Path(section.benchmark_data), section.benchmark_items))


def _ask_benchmarks(context: StageContext, asks: dict[str, list[Any]]) -> dict[str, Any]:
    """The pretrained model's scores, each item's judgement in benchmarks.json, and their picture beside it."""
    with context.console.status("asking benchmarks"):
        scores, items = ask([_engine(context.run, "pretrain")], asks)
    write_json(context.stage.path / "benchmarks.json", {"tasks": scores, "items": items})
    draw_scores([context.recipe.name], scores, context.stage.path / "benchmarks.svg")
    context.console.print(benchmark_table([context.recipe.name], scores))
    return {name: of_task["models"][0] for name, of_task in scores.items()}


def write_samples(engine: Engine, recipe: Recipe) -> list[str]:
    """What the model makes of each of the recipe's beginnings."""
    section, tokenizer = recipe.evaluate, engine.tokenizer
    prompts = [tokenizer.encode(prompt) for prompt in section.sample_prompts]
    written = engine.generate(
        prompts,
        section.sample_tokens,
        section.sample_temperature,
        seed=recipe.seed,
        stop_ids=(tokenizer.end_of_text_id,),
    )
    return [prompt + tokenizer.decode(ids) for prompt, ids in zip(section.sample_prompts, written, strict=True)]


def evaluate_run(path: Path, int8: bool, as_json: bool) -> None:
    """`hornbook eval`: score the models of a run anew, by its recipe, and print the scores; nothing is written.

    int8: with weights held so.

    Raises UserError where `path` is no run, where it has no model yet, or where its recipe names no suites.
    """
    run = open_run(path)
    recipe = load_recipe(run.recipe_path)
    if not recipe.evaluate.suites:
        raise UserError(f"{run.recipe_path}: evaluate.suites: is empty, so there is nothing to ask. Name some suites.")
    stages = _stages_with_models(run)
    if not stages:
        raise UserError(f"{path}: has no model yet. Run its recipe first, at least --until pretrain.")
    scores = {stage: _score(_engine(run, stage, int8), recipe, stage) for stage in stages}
    if as_json:
        print(json.dumps(scores, indent=2))
    else:
        Console().print(score_table(scores))


def _stages_with_models(run: RunDirectory) -> list[str]:
    finished = run.finished_stages()
    return [stage for stage in _STAGES_ASKED if stage in finished]


def _engine(run: RunDirectory, stage: str, int8: bool = False) -> Engine:
    # Rounded to bfloat16, the probabilities of different choices tie, and a tie counts as wrong.
    return load_engine(find_model(run.path, (stage,)), EngineOptions("float32", int8))


def _score(engine: Engine, recipe: Recipe, stage: str, folder: Path | None = None) -> dict[str, SuiteScores]:
    ask_as = as_text if stage == "pretrain" else as_chat
    scores: dict[str, SuiteScores] = {}
    for suite in recipe.evaluate.suites:
        questions = held_out_questions(suite, recipe.evaluate.questions_per_suite, recipe.storyworld)
        answered = answer_questions(engine, questions, ask_as)
        scores[suite] = suite_scores(answered)
        if folder is not None:
            write_json(folder / f"{suite}-{stage}.json", _record(scores[suite], answered))
    return scores


def _record(scores: SuiteScores, answered: list[Answered]) -> dict[str, Any]:
    return {"scores": scores, "transcripts": [one.transcript() for one in answered[:TRANSCRIPTS_KEPT]]}
