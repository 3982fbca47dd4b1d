"""Which stages a recipe has, in which order, and which are already done.

Each stage has a fingerprint: a hash of what its result depends on, which is its part of the recipe, the
content of the user's files it reads, and the fingerprints of the stages it needs. A stage whose fingerprint
is the same as last time and whose files are unharmed is skipped, so a changed recipe repeats only what
depends on it.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from hornbook.errors import UserError
from hornbook.parallel.processes import Processes
from hornbook.problems import nearest
from hornbook.recipe import Recipe
from hornbook.recipe_parallel import SPREAD_STAGES
from hornbook.recipe_training import TrainingSection
from hornbook.run_directory import RunDirectory, sha256_file
from hornbook.show import show_run
from hornbook.stages.context import StageContext

# Where and how often work is done, but not what comes out of it.
_WITHOUT_EFFECT = {
    "micro_batch_size",
    "recompute",
    "checkpoint_interval_steps",
    "keep_checkpoints",
    "milestone_interval_steps",
    "tracking",
}
_UNLESS_USED = {"weights", "patience", "lora"}


@dataclass(frozen=True)
class Stage:
    """One stage of the pipeline.

    Attributes:
        name: the stage's name, and that of its folder in the run.
        needs: the stages whose results it reads. Those that the recipe leaves out do not count.
        settings: all of the recipe that its result depends on, or None where the recipe leaves the stage out.
        run: does the work and returns the facts for `stage.json`. Imports what it needs when called.
        sources: the recipe's sources that it reads; what lies in `files:` goes into the fingerprint.
        version: raised by one when the same settings would give another result than before.
    """

    name: str
    needs: tuple[str, ...]
    settings: Callable[[Recipe], Mapping[str, Any] | None]
    run: Callable[[StageContext], dict[str, Any]]
    sources: Callable[[Recipe], tuple[str, ...]] = lambda recipe: ()
    version: int = 1


@dataclass(frozen=True)
class Selection:
    """Which stages to run: all, or one alone (`only`), or those from `start`, up to and with `until`."""

    only: str | None = None
    start: str | None = None
    until: str | None = None


def _run_corpus(context: StageContext) -> dict[str, Any]:
    from hornbook.stages.corpus import run

    return run(context)


def _run_tokenizer(context: StageContext) -> dict[str, Any]:
    from hornbook.stages.tokenizer import run

    return run(context)


def _run_tokens(context: StageContext) -> dict[str, Any]:
    from hornbook.stages.tokens import run

    return run(context)


def _run_pretrain(context: StageContext) -> dict[str, Any]:
    from hornbook.stages.pretrain import run

    return run(context)


def _run_finetune(context: StageContext) -> dict[str, Any]:
    from hornbook.stages.finetune import run

    return run(context)


def _run_preference(context: StageContext) -> dict[str, Any]:
    from hornbook.stages.preference import run

    return run(context)


def _run_reinforce(context: StageContext) -> dict[str, Any]:
    from hornbook.stages.reinforce import run

    return run(context)


def _run_classify(context: StageContext) -> dict[str, Any]:
    from hornbook.stages.classify import run

    return run(context)


def _run_evaluation(context: StageContext) -> dict[str, Any]:
    from hornbook.stages.evaluate import run

    return run(context)


def _run_export(context: StageContext) -> dict[str, Any]:
    from hornbook.stages.export import run

    return run(context)


def _corpus_settings(recipe: Recipe) -> Mapping[str, Any] | None:
    if recipe.pretrain is None:
        return None
    settings: dict[str, Any] = {"corpus": recipe.corpus.model_dump(mode="json", exclude={"engine"})}
    settings["benchmarks"] = _benchmarks(recipe)
    if "storyworld" in (*recipe.corpus.source, *recipe.corpus.validation_source):
        # Conversations belong to fine-tuning: more of them must not make the corpus anew.
        settings["storyworld"] = recipe.storyworld.model_dump(mode="json", exclude={"conversations"})
    return settings


def _benchmarks(recipe: Recipe) -> list[Any]:
    """What the corpus must not give away: suites with the world's seed and the number of questions, and files."""
    from hornbook.corpus.benchmarks import benchmark_files
    from hornbook.stages.corpus import questions_looked_for

    files = [path for pattern in recipe.corpus.decontaminate_against for path in benchmark_files(pattern)]
    suites = [[suite, recipe.storyworld.seed, questions_looked_for(recipe)] for suite in recipe.evaluate.suites]
    return [*suites, *([path.name, sha256_file(path)] for path in files)]


def _tokenizer_settings(recipe: Recipe) -> Mapping[str, Any] | None:
    if recipe.pretrain is None:
        return None
    settings: dict[str, Any] = recipe.tokenizer.model_dump(mode="json")
    if recipe.tokenizer.load_from is not None:
        from hornbook.tokenizer.published import files_of

        # Where the files lie has no effect, what is in them does.
        settings["load_from"] = [sha256_file(path) for path in files_of(recipe.tokenizer.load_from)]
    return settings | _origin(recipe, recipe.pretrain.init_from)


def _pretrain_settings(recipe: Recipe) -> Mapping[str, Any] | None:
    if recipe.pretrain is None:
        return None
    settings: dict[str, Any] = {"seed": recipe.seed, "training": _training_settings(recipe.pretrain)}
    return settings | {"model": recipe.model.model_dump(mode="json")} | _origin(recipe, recipe.pretrain.init_from)


def _origin(recipe: Recipe, folder: str | None) -> dict[str, Any]:
    """What the model in a folder is, wherever it lies, and what its tokenizer gets besides."""
    if folder is None:
        return {}
    from hornbook.model.origin import origin_of

    added = recipe.tokenizer.special_tokens
    return {"init_from": origin_of(Path(folder))["files"], **({"special_tokens": list(added)} if added else {})}


def _finetune_settings(recipe: Recipe) -> Mapping[str, Any] | None:
    if recipe.finetune is None:
        return None
    training = _training_settings(recipe.finetune)
    # These came later: where they are not used, a run from before them is still what the recipe asks for.
    training = {name: value for name, value in training.items() if value or name not in _UNLESS_USED}
    settings = {"seed": recipe.seed, "training": training}
    settings |= _origin(recipe, recipe.finetune.init_from)
    if recipe.pretrain is None:
        settings["benchmarks"] = _benchmarks(recipe)  # else the corpus has been held against them
    if "storyworld" in recipe.finetune.source:
        settings["storyworld"] = recipe.storyworld.model_dump(mode="json")
    return settings


def _preference_settings(recipe: Recipe) -> Mapping[str, Any] | None:
    section = recipe.preference
    if section is None:
        return None
    settings = {"seed": recipe.seed, "training": _training_settings(section)} | _origin(recipe, section.init_from)
    return settings | ({"storyworld": recipe.storyworld.seed} if "storyworld" in section.source else {})


def _reinforce_settings(recipe: Recipe) -> Mapping[str, Any] | None:
    section = recipe.reinforce
    if section is None:
        return None
    settings = {"seed": recipe.seed, "training": _training_settings(section)} | _origin(recipe, section.init_from)
    return settings | ({"storyworld": recipe.storyworld.seed} if "storyworld" in section.source else {})


def _classify_settings(recipe: Recipe) -> Mapping[str, Any] | None:
    section = recipe.classify
    if section is None:
        return None
    return {"seed": recipe.seed, "training": _training_settings(section)} | _origin(recipe, section.init_from)


def _training_settings(section: TrainingSection) -> dict[str, Any]:
    return section.model_dump(mode="json", exclude=_WITHOUT_EFFECT | {"init_from", "sample_answers"})


def _evaluation_settings(recipe: Recipe) -> Mapping[str, Any]:
    world = recipe.storyworld.model_dump(mode="json")
    settings = {"seed": recipe.seed, "storyworld": world, "evaluate": recipe.evaluate.model_dump(mode="json")}
    if recipe.evaluate.benchmarks:
        from hornbook.evaluation.run_benchmarks import files_of

        folder = Path(recipe.evaluate.benchmark_data)
        settings["files"] = [
            [p.name, sha256_file(p)] for name in recipe.evaluate.benchmarks for p in files_of(name, folder)
        ]
    return settings


STAGES = (
    Stage(
        name="corpus",
        needs=(),
        settings=_corpus_settings,
        run=_run_corpus,
        sources=lambda recipe: (*recipe.corpus.source, *recipe.corpus.validation_source),
        version=7,
    ),
    Stage(
        name="tokenizer",
        needs=("corpus",),
        settings=_tokenizer_settings,
        run=_run_tokenizer,
    ),
    Stage(
        name="tokens",
        needs=("corpus", "tokenizer"),
        settings=lambda recipe: None if recipe.pretrain is None else {},
        run=_run_tokens,
    ),
    Stage(
        name="pretrain",
        needs=("tokenizer", "tokens"),
        settings=_pretrain_settings,
        run=_run_pretrain,
        version=3,
    ),
    Stage(
        name="finetune",
        needs=("tokenizer", "pretrain"),
        settings=_finetune_settings,
        run=_run_finetune,
        sources=lambda recipe: recipe.finetune.source if recipe.finetune else (),
        version=6,
    ),
    Stage(
        name="preference",
        needs=("tokenizer", "pretrain", "finetune"),
        settings=_preference_settings,
        run=_run_preference,
        sources=lambda recipe: recipe.preference.source if recipe.preference else (),
        version=3,
    ),
    Stage(
        name="reinforce",
        needs=("tokenizer", "pretrain", "finetune", "preference"),
        settings=_reinforce_settings,
        run=_run_reinforce,
        sources=lambda recipe: recipe.reinforce.source if recipe.reinforce else (),
        version=3,
    ),
    Stage(
        name="classify",
        needs=("tokenizer", "pretrain", "finetune"),
        settings=_classify_settings,
        run=_run_classify,
        sources=lambda recipe: recipe.classify.source if recipe.classify else (),
        version=2,
    ),
    Stage(
        name="evaluation",
        needs=("tokenizer", "pretrain", "finetune", "preference", "reinforce"),
        settings=_evaluation_settings,
        run=_run_evaluation,
        version=2,
    ),
    Stage(
        name="export",
        needs=("tokenizer", "pretrain", "finetune", "preference", "reinforce", "classify"),
        settings=lambda recipe: recipe.export.model_dump(mode="json"),
        run=_run_export,
    ),
)


def run_pipeline(
    recipe: Recipe,
    runs_directory: Path | str,
    selection: Selection,
    console: Console,
    stages: Sequence[Stage] = STAGES,
    processes: Processes | None = None,
) -> RunDirectory:
    """Bring the selected stages of a recipe up to date in `runs_directory`/NAME, and show what is there.

    Of several processes, all train together, and the first does the rest while the others wait for it.

    Raises UserError where the selection names no stage of the recipe or leaves out work that is not done yet,
    where a source names no file, and where another process works in the same folder.
    """
    stages = [stage for stage in stages if stage.settings(recipe) is not None]
    selected = _select(stages, selection)
    run = RunDirectory(Path(runs_directory) / recipe.name)
    processes = processes or Processes()
    with run.lock() if processes.is_first else nullcontext():
        # By name: to do, in order, each with its fingerprint.
        to_do = processes.first_does(lambda: _begin(recipe, stages, selected, run, console))
        for number, stage in enumerate((stage for stage in stages if stage.name in to_do), start=1):
            console.rule(f"[bold]{stage.name}[/bold]  {number} of {len(to_do)}", align="left")
            _run_stage(stage, to_do[stage.name], recipe, run, console, processes)
        if processes.is_first:
            show_run(run.path, [stage.name for stage in stages], console)
    return run


def _begin(
    recipe: Recipe, stages: Sequence[Stage], selected: Sequence[Stage], run: RunDirectory, console: Console
) -> dict[str, str]:
    """Announce what is to do and return it: the fingerprint of each such stage."""
    fingerprints = _fingerprints(recipe, stages)
    done = {stage.name for stage in stages if run.stage(stage.name).is_done(fingerprints[stage.name])}
    _check_needs(stages, selected, done)
    _check_rows(recipe)
    outdated = run.keep_finished(fingerprints)
    run.write_recipe(recipe)
    _announce(run, stages, selected, done, console)
    to_do = {stage.name: fingerprints[stage.name] for stage in selected if stage.name not in done}
    if set_aside := [name for name in outdated if name not in to_do]:
        console.print(
            f"  of an earlier form of the recipe, and no longer used: {', '.join(set_aside)}", highlight=False
        )
    return to_do


def _run_stage(
    stage: Stage, fingerprint: str, recipe: Recipe, run: RunDirectory, console: Console, processes: Processes
) -> None:
    folder = run.stage(stage.name)
    processes.first_does(lambda: folder.begin(fingerprint))
    started = time.monotonic()
    context = StageContext(recipe=recipe, run=run, stage=folder, console=console)
    if stage.name in SPREAD_STAGES:
        facts = stage.run(replace(context, processes=processes))
    else:
        facts = processes.first_does(lambda: stage.run(context))
    if processes.is_first:
        folder.finish(fingerprint, seconds=time.monotonic() - started, facts=facts)
        run.update_summary(stage.name, facts)


def _select(stages: Sequence[Stage], selection: Selection) -> list[Stage]:
    names = [stage.name for stage in stages]
    flags = {"--only": selection.only, "--from": selection.start, "--until": selection.until}
    for flag, name in flags.items():
        if name is not None and name not in names:
            guess = nearest(name, names)
            meant = f"Did you mean {guess}? " if guess else ""
            raise UserError(f"{flag} {name}: is no stage of this recipe. {meant}Its stages are: {', '.join(names)}.")
    if selection.only is not None:
        if selection.start or selection.until:
            raise UserError("--only: names one stage; leave out --from and --until, or leave out --only.")
        return [stages[names.index(selection.only)]]
    first = names.index(selection.start) if selection.start else 0
    last = names.index(selection.until) if selection.until else len(names) - 1
    if first > last:
        raise UserError(f"--from {selection.start}: comes after --until {selection.until}. Turn them round.")
    return list(stages[first : last + 1])


def _check_needs(stages: Sequence[Stage], selected: Sequence[Stage], done: set[str]) -> None:
    """Raise UserError where a selected stage would read the work of one that is neither selected nor done."""
    ready = done | {stage.name for stage in selected}
    names = [stage.name for stage in stages]
    for stage in selected:
        missing = [name for name in stage.needs if name in names and name not in ready]
        if missing and stage.name not in done:
            last = max(missing, key=names.index)
            raise UserError(
                f"{stage.name}: needs {' and '.join(missing)}, not done yet for this recipe. "
                f"Type the same command with --until {last} first, or leave out --only and --from."
            )


def _check_rows(recipe: Recipe) -> None:
    """Raise UserError where rows of any stage are longer than the model takes that the recipe goes on from."""
    if recipe.origin is None:
        return
    from hornbook.planning.plan import planned_config

    longest = planned_config(recipe).max_seq_len
    for name, section in recipe.training_sections.items():
        if section.row_tokens is not None and section.row_tokens > longest:
            raise UserError(
                f"{name}.row_tokens: is {section.row_tokens}, but the model in {recipe.origin} takes {longest} tokens "
                "at most. Give shorter rows."
            )


def _fingerprints(recipe: Recipe, stages: Sequence[Stage]) -> dict[str, str]:
    """The fingerprint of each stage; `stages` are in an order in which a stage comes after those it needs."""
    fingerprints: dict[str, str] = {}
    for stage in stages:
        basis = {
            "name": stage.name,
            "version": stage.version,
            "settings": stage.settings(recipe),
            "needs": {name: fingerprints[name] for name in stage.needs if name in fingerprints},
            "files": _file_contents(stage, recipe),
        }
        fingerprints[stage.name] = hashlib.sha256(json.dumps(basis, sort_keys=True).encode()).hexdigest()
    return fingerprints


def _file_contents(stage: Stage, recipe: Recipe) -> list[tuple[str, str]]:
    """Name and checksum of each of the user's files. Where they lie, and their dates, have no effect.

    So a file that a stage cannot read is found before any stage has begun.
    """
    patterns = [source.removeprefix("files:") for source in stage.sources(recipe) if source.startswith("files:")]
    if not patterns:
        return []
    from hornbook.corpus.files import KINDS, find_files
    from hornbook.stages.rows import ROW_KINDS

    kinds = KINDS if stage.name == "corpus" else ROW_KINDS
    found = [path for pattern in patterns for path in find_files(pattern, kinds)]
    return [(path.name, sha256_file(path)) for path in found]


def _announce(
    run: RunDirectory, stages: Sequence[Stage], selected: Sequence[Stage], done: set[str], console: Console
) -> None:
    """Say in a line or two what will be done and what need not be."""
    to_do = [stage.name for stage in selected if stage.name not in done]
    kept = [stage.name for stage in stages if stage.name in done]
    console.print(f"[bold]{run.path}[/bold]", highlight=False)
    if kept:
        console.print(f"done before: {', '.join(kept)}", highlight=False)
    console.print(f"to do: {' → '.join(to_do)}" if to_do else "nothing to do", highlight=False)
