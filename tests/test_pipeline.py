"""Which stages run, and which need not. The stages here are small stand-ins for the real ones."""

import dataclasses
import io
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from hornbook.errors import RunFailed, UserError
from hornbook.pipeline import STAGES, Selection, Stage, run_pipeline
from hornbook.recipe import load_recipe
from hornbook.run_directory import RunDirectory, atomic_write
from hornbook.stages.context import StageContext


class Workshop:
    """Runs a little recipe through stand-in stages, and remembers which of them did any work."""

    def __init__(self, folder: Path, recipe_path: Path) -> None:
        self.folder = folder
        self.recipe_path = recipe_path
        self.worked: list[str] = []
        self.stages = (
            Stage("corpus", (), lambda recipe: {"seed": recipe.storyworld.seed}, self.work),
            Stage("pretrain", ("corpus",), lambda recipe: {"lr": recipe.pretrain.lr}, self.work),
            Stage(
                "finetune",
                ("pretrain",),
                lambda recipe: {"lr": recipe.finetune.lr} if recipe.finetune else None,
                self.work,
            ),
            Stage("export", ("pretrain", "finetune"), lambda recipe: {}, self.work),
        )

    def work(self, context: StageContext) -> dict[str, Any]:
        self.worked.append(context.stage.name)
        atomic_write(context.stage.path / "result.txt", f"work of {context.stage.name}")
        return {"words": 3, "kind": "a text"}

    def run(self, overrides: dict[str, Any] | None = None, **selection: str) -> list[str]:
        """The names of the stages that did work."""
        self.worked.clear()
        self.output = io.StringIO()
        console = Console(file=self.output, width=100)
        recipe = load_recipe(self.recipe_path, overrides or {})
        run_pipeline(recipe, self.folder, Selection(**selection), console, self.stages)
        return list(self.worked)

    @property
    def run_directory(self) -> RunDirectory:
        return RunDirectory(self.folder / "little")


@pytest.fixture
def workshop(tmp_path: Path, write_recipe: Callable[..., Path]) -> Workshop:
    recipe = write_recipe(
        "[pretrain]\ntokens = 4096\nglobal_batch_tokens = 1024\n[finetune]\ntokens = 4096\nglobal_batch_tokens = 1024\n"
    )
    return Workshop(tmp_path / "runs", recipe)


ALL = ["corpus", "pretrain", "finetune", "export"]


def test_stages_run_in_order_and_leave_their_records(workshop: Workshop) -> None:
    assert workshop.run() == ALL
    assert list(workshop.run_directory.summary()["stages"]) == ALL
    record = workshop.run_directory.stage("corpus").record()
    assert record is not None
    assert record["facts"] == {"words": 3, "kind": "a text"}
    assert list(record["files"]) == ["result.txt"]


def test_a_second_run_does_nothing(workshop: Workshop) -> None:
    workshop.run()
    stages = workshop.run_directory.path.rglob("*/*")
    before = {path: path.stat().st_mtime_ns for path in stages if path.is_file()}
    assert workshop.run() == []
    assert "nothing to do" in workshop.output.getvalue()
    assert len(before) == 3 * len(ALL)
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize(
    ("change", "repeated"),
    [
        ({"storyworld.seed": 2}, ALL),
        ({"pretrain.lr": 0.5}, ["pretrain", "finetune", "export"]),
        ({"finetune.lr": 0.5}, ["finetune", "export"]),
        ({"description": "told otherwise"}, []),
    ],
)
def test_a_changed_recipe_repeats_only_what_depends_on_the_change(
    workshop: Workshop, change: dict[str, Any], repeated: list[str]
) -> None:
    workshop.run()
    assert workshop.run(change) == repeated
    assert workshop.run(change) == []


def test_a_raised_version_repeats_the_stage_and_what_depends_on_it(workshop: Workshop) -> None:
    workshop.run()
    corpus, pretrain, *rest = workshop.stages
    workshop.stages = (corpus, dataclasses.replace(pretrain, version=2), *rest)
    assert workshop.run() == ["pretrain", "finetune", "export"]


def test_a_damaged_file_repeats_its_stage(workshop: Workshop) -> None:
    workshop.run()
    (workshop.run_directory.path / "pretrain" / "result.txt").write_text("work of pretrainX")
    assert workshop.run() == ["pretrain"]
    assert workshop.run() == []


def test_a_stage_that_the_recipe_leaves_out_is_left_out(tmp_path: Path, write_recipe: Callable[..., Path]) -> None:
    workshop = Workshop(tmp_path / "runs", write_recipe())
    assert workshop.run() == ["corpus", "pretrain", "export"]


def test_a_failed_stage_is_tried_again_and_those_before_it_are_not(workshop: Workshop) -> None:
    def fail(context: StageContext) -> dict[str, Any]:
        raise RunFailed("the loss is not a number")

    corpus, pretrain, *rest = workshop.stages
    workshop.stages = (corpus, dataclasses.replace(pretrain, run=fail), *rest)
    with pytest.raises(RunFailed):
        workshop.run()
    workshop.stages = (corpus, pretrain, *rest)
    assert workshop.run() == ["pretrain", "finetune", "export"]


def test_a_killed_stage_goes_on_from_its_checkpoint(tmp_path: Path, write_recipe: Callable[..., Path]) -> None:
    """The process kills itself in the second step of three; the same command then does what is left."""
    script = tmp_path / "train.py"
    script.write_text(
        textwrap.dedent("""
            import os, signal, sys
            from pathlib import Path
            from rich.console import Console
            from hornbook.pipeline import Selection, Stage, run_pipeline
            from hornbook.recipe import load_recipe
            from hornbook.run_directory import atomic_write

            def train(context):
                for step in range(3):
                    checkpoint = context.stage.path / "checkpoints" / str(step)
                    if not checkpoint.exists():
                        print("step", step)
                        atomic_write(checkpoint, "state")
                        if step == 1 and sys.argv[3] == "kill":
                            os.kill(os.getpid(), signal.SIGKILL)
                atomic_write(context.stage.path / "model", "weights")
                return {}

            stages = (Stage("pretrain", (), lambda recipe: {"lr": recipe.pretrain.lr}, train),)
            recipe = load_recipe(sys.argv[1])
            run_pipeline(recipe, sys.argv[2], Selection(), Console(stderr=True), stages)
        """),
        encoding="utf-8",
    )

    def train(fate: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-u", str(script), str(write_recipe()), str(tmp_path / "runs"), fate]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    killed = train("kill")
    assert killed.returncode == -signal.SIGKILL
    assert killed.stdout == "step 0\nstep 1\n"
    resumed = train("live")
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout == "step 2\n"
    assert train("live").stdout == ""


def test_what_an_earlier_form_of_the_recipe_left_counts_for_nothing(workshop: Workshop) -> None:
    workshop.run()
    assert workshop.run({"finetune.lr": 0.5}, until="finetune") == ["finetune"]
    assert "of an earlier form of the recipe, and no longer used: export" in workshop.output.getvalue()
    assert list(workshop.run_directory.finished_stages()) == ["corpus", "finetune", "pretrain"]
    assert list(workshop.run_directory.summary()["stages"]) == ["corpus", "pretrain", "finetune"]
    assert (workshop.run_directory.path / "export" / "result.txt").is_file()

    without_finetune = workshop.recipe_path.read_text().split("[finetune]")[0]
    workshop.recipe_path.write_text(without_finetune)
    assert workshop.run() == ["export"]
    assert list(workshop.run_directory.finished_stages()) == ["corpus", "export", "pretrain"]
    assert "finetune" not in workshop.run_directory.summary()["stages"]


def test_one_stage_alone_and_stages_up_to_one_and_from_one(workshop: Workshop) -> None:
    assert workshop.run(until="pretrain") == ["corpus", "pretrain"]
    assert workshop.run(only="finetune") == ["finetune"]
    assert workshop.run(start="finetune") == ["export"]


def test_an_unknown_stage_is_answered_with_the_known_ones(workshop: Workshop) -> None:
    with pytest.raises(UserError, match=r"--only pretrian: is no stage of this recipe.*corpus, pretrain, finetune"):
        workshop.run(only="pretrian")


def test_a_stage_whose_needs_are_missing_says_which_and_what_to_type(workshop: Workshop) -> None:
    with pytest.raises(UserError, match=r"finetune: needs pretrain, not done yet.*--until pretrain first"):
        workshop.run(only="finetune")
    assert workshop.worked == []


def test_work_done_for_another_recipe_does_not_count_as_a_need(workshop: Workshop) -> None:
    workshop.run(until="pretrain")
    with pytest.raises(UserError, match="finetune: needs pretrain"):
        workshop.run({"pretrain.lr": 0.5}, only="finetune")


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"only": "corpus", "until": "export"}, "leave out --from and --until"),
        ({"start": "export", "until": "corpus"}, "comes after --until corpus"),
    ],
)
def test_selections_that_contradict_themselves_are_refused(
    workshop: Workshop, selection: dict[str, str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        workshop.run(**selection)


def test_changed_content_of_the_users_files_repeats_and_a_new_place_or_date_does_not(
    workshop: Workshop,
) -> None:
    folder = workshop.folder.parent / "texts"
    atomic_write(folder / "a.txt", "once")
    corpus, *rest = workshop.stages
    sources = dataclasses.replace(corpus, sources=lambda recipe: recipe.corpus.source)
    workshop.stages = (sources, *rest)
    overrides = {"corpus.source": [f"files:{folder}/*.txt"]}
    assert workshop.run(overrides) == ALL
    atomic_write(folder / "a.txt", "once")
    assert workshop.run(overrides) == []
    folder.rename(folder.with_name("moved"))
    overrides = {"corpus.source": [f"files:{folder.with_name('moved')}/*.txt"]}
    assert workshop.run(overrides) == []
    atomic_write(folder.with_name("moved") / "a.txt", "twice")
    assert workshop.run(overrides) == ALL


def test_the_run_ends_with_the_scores_a_sample_and_where_things_are(workshop: Workshop) -> None:
    def evaluate(context: StageContext) -> dict[str, Any]:
        suite = {"choice": 0.25, "choice_stderr": 0.03, "free": 0.1, "free_stderr": 0.02, "chance": 0.25, "n": 200}
        return {"scores": {"pretrain": {"facts": suite}}, "samples": ["Once [upon] a time there was a kite."]}

    evaluation = Stage("evaluation", ("pretrain",), lambda recipe: {}, evaluate)
    workshop.stages = (*workshop.stages, evaluation)
    workshop.run()
    printed = workshop.output.getvalue()
    for expected in ("25 ± 3", "10 ± 2", "Once [upon] a time there was a kite.", "words 3 · kind a text"):
        assert expected in printed
    assert str(workshop.run_directory.path / "summary.json") in printed


def test_the_real_stages_stand_in_an_order_in_which_needs_come_first() -> None:
    names = [stage.name for stage in STAGES]
    before, after = ["corpus", "tokenizer", "tokens", "pretrain"], ["evaluation", "export"]
    assert names == [*before, "finetune", "preference", "reinforce", "classify", *after]
    for position, stage in enumerate(STAGES):
        assert set(stage.needs) <= set(names[:position])


STAGES_OF_BOTH = ["corpus", "tokenizer", "tokens", "pretrain", "finetune", "evaluation", "export"]
"""The stages of a recipe that pretrains and fine-tunes."""


def repeated_by(change: dict[str, Any], write_recipe: Callable[..., Path], folder: Path) -> list[str]:
    """The real stages whose fingerprint a change of a recipe touches."""

    def work(context: StageContext) -> dict[str, Any]:
        worked.append(context.stage.name)
        return {}

    worked: list[str] = []
    stages = tuple(dataclasses.replace(stage, run=work) for stage in STAGES)
    training = "tokens = 4096\nglobal_batch_tokens = 1024\n"
    path = write_recipe(f"[pretrain]\n{training}[finetune]\n{training}")
    console = Console(file=io.StringIO())
    run_pipeline(load_recipe(path), folder, Selection(), console, stages)
    assert worked == STAGES_OF_BOTH
    worked.clear()
    run_pipeline(load_recipe(path, change), folder, Selection(), console, stages)
    return worked


@pytest.mark.parametrize(
    ("change", "first"),
    [
        ({"storyworld.stories": 5}, "corpus"),
        ({"corpus.filters.min_words": 9}, "corpus"),
        ({"tokenizer.vocab_size": 300}, "tokenizer"),
        ({"model.n_layers": 5}, "pretrain"),
        ({"seed": 5}, "pretrain"),
        ({"pretrain.lr": 0.5}, "pretrain"),
        ({"finetune.lr": 0.5}, "finetune"),
        ({"storyworld.conversations": 5}, "finetune"),
        ({"pretrain.micro_batch_size": 1, "finetune.recompute": "full"}, None),
        ({"pretrain.checkpoint_interval_steps": 1, "finetune.keep_checkpoints": 5}, None),
    ],
)
def test_a_change_of_a_real_recipe_repeats_from_the_first_stage_it_touches(
    change: dict[str, Any], first: str | None, write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    expected = STAGES_OF_BOTH[STAGES_OF_BOTH.index(first) :] if first else []
    assert repeated_by(change, write_recipe, tmp_path / "runs") == expected


def test_what_a_model_from_elsewhere_is_held_against_and_what_its_tokenizer_gets_repeat_its_training(
    write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    """There is no corpus in such a recipe whose fingerprint would hold both."""
    from hornbook.model.config import config_from_recipe
    from hornbook.model.huggingface import save_pretrained
    from hornbook.model.transformer import Transformer
    from hornbook.pipeline import _fingerprints
    from hornbook.recipe_data import ModelSection

    origin = tmp_path / "model"
    config = config_from_recipe(ModelSection(n_layers=1, d_model=16, n_heads=2, max_seq_len=32), vocab_size=300)
    save_pretrained(Transformer(config), origin, end_of_text_id=0, pad_id=1)
    (tmp_path / "bench.jsonl").write_text('{"text": "a question"}\n')
    path = write_recipe(
        f"[finetune]\ninit_from = '{origin}'\nrow_tokens = 32\ntokens = 1024\nglobal_batch_tokens = 256\n", ""
    )
    stages = [stage for stage in STAGES if stage.name == "finetune"]
    changes = [
        {},
        {"corpus.decontaminate_against": (f"files:{tmp_path}/bench.jsonl",)},
        {"tokenizer.special_tokens": ("<|tool|>",)},
    ]
    assert len({_fingerprints(load_recipe(path, change), stages)["finetune"] for change in changes}) == 3


def test_other_files_of_a_benchmark_repeat_the_evaluation(write_recipe: Callable[..., Path], tmp_path: Path) -> None:
    from hornbook.pipeline import _fingerprints

    stages = [stage for stage in STAGES if stage.name == "evaluation"]
    change = {"evaluate.benchmarks": ("hellaswag",), "evaluate.benchmark_data": str(tmp_path)}
    found = set()
    for content in (None, "{}", "{} "):
        if content is not None:
            (tmp_path / "hellaswag.jsonl").write_text(content)
        found.add(_fingerprints(load_recipe(write_recipe(), change), stages)["evaluation"])
    assert len(found) == 3


def test_changed_questions_repeat_the_evaluation_alone(write_recipe: Callable[..., Path], tmp_path: Path) -> None:
    assert repeated_by({"evaluate.questions_per_suite": 7}, write_recipe, tmp_path / "runs") == ["evaluation"]
