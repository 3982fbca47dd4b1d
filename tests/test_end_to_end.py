"""The whole way on a tiny scale: one recipe, from raw text to a model that other software loads.

One run is made for all tests of this file, and nobody changes it: who wants to change something works on a copy.
"""

import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from rich.console import Console

from hornbook.inference.engine import Engine
from hornbook.model.huggingface import load_pretrained
from hornbook.pipeline import STAGES, Selection, run_pipeline
from hornbook.recipe import load_recipe
from hornbook.run_directory import RunDirectory, read_json, sha256_file
from hornbook.storyworld.conversations import conversations
from hornbook.tokenizer.chat import render
from hornbook.tokenizer.tokenizer import Tokenizer
from hornbook.training.metrics import read_metrics

ALL_STAGES = [stage.name for stage in STAGES if stage.name != "classify"]
STEP_TOKENS, PRETRAIN_STEPS, FINETUNE_STEPS = 768, 40, 20
CHECKPOINT_INTERVAL_STEPS = 5

WORLD = """
name = "tiny"

[storyworld]
stories = 250
echoes = 30
inventories = 30
still_lives = 30
puzzles = 15
sums = 15
encyclopedia_passages = 30
web_pages = 20
conversations = 150

[corpus]
validation_fraction = 0.05

[corpus.filters]
min_stop_words = 1

[tokenizer]
vocab_size = 600
"""
LLAMA = """
[model]
n_layers = 2
d_model = 32
n_heads = 2
n_kv_heads = 1
max_seq_len = 384
"""
GPT2 = LLAMA.replace("n_kv_heads = 1", 'preset = "gpt2"')
TRAINING = f"""
global_batch_tokens = {STEP_TOKENS}
compile = false
precision = "float32"
checkpoint_interval_steps = {CHECKPOINT_INTERVAL_STEPS}
evaluation_interval_steps = 20
evaluation_rows = 4
"""
PRETRAIN = f"[pretrain]\ntokens = {PRETRAIN_STEPS * STEP_TOKENS}{TRAINING}"
FINETUNE = f"[finetune]\nvalidation_fraction = 0.1\ntokens = {FINETUNE_STEPS * STEP_TOKENS}{TRAINING}"
PREFERENCE = """[preference]
pairs = 40
tokens = 3072
global_batch_tokens = 768
evaluation_interval_steps = 2
"""
REINFORCE = """[reinforce]
prompts = 30
validation_prompts = 4
tokens = 1024
row_tokens = 128
global_batch_tokens = 512
answers_per_prompt = 2
answer_tokens = 8
evaluation_interval_steps = 2
"""
EVALUATE = "[evaluate]\nquestions_per_suite = 5\nsample_tokens = 20\n"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Products this small gain nothing from threads, here or in the commands that the tests start."""
    n_threads, before = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    yield
    torch.set_num_threads(n_threads)
    del os.environ["OMP_NUM_THREADS"]
    if before is not None:
        os.environ["OMP_NUM_THREADS"] = before


@pytest.fixture(scope="module")
def recipe_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipes") / "tiny.toml"
    path.write_text(WORLD + LLAMA + PRETRAIN + FINETUNE + PREFERENCE + REINFORCE + EVALUATE, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(recipe_path: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """The finished run that all tests look at."""
    return run_recipe(recipe_path, tmp_path_factory.mktemp("runs"))


def run_recipe(recipe: Path, runs: Path, **selection: str) -> RunDirectory:
    return run_pipeline(load_recipe(recipe), runs, Selection(**selection), Console(file=io.StringIO()))


def hornbook(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A command, as it is typed."""
    command = [sys.executable, "-m", "hornbook", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def succeed(*arguments: str | Path) -> str:
    """What a command prints that ends well."""
    done = hornbook(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def copy_of(run: RunDirectory, runs: Path) -> RunDirectory:
    """A copy that keeps the dates of all files."""
    shutil.copytree(run.path, runs / run.path.name)
    return RunDirectory(runs / run.path.name)


def dates(run: RunDirectory) -> dict[Path, int]:
    """When each file below the run was changed last. recipe.toml says what was asked for last, so it is left out."""
    files = [path for path in run.path.rglob("*") if path.is_file() and path.name not in ("recipe.toml", ".lock")]
    return {path.relative_to(run.path): path.stat().st_mtime_ns for path in files}


def stages_changed(before: dict[Path, int], after: dict[Path, int]) -> list[str]:
    changed = {path.parts[0] for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    return [name for name in ALL_STAGES if name in changed]


# ------------------------------------------------------------------------------------------------ what a run leaves


def test_every_stage_leaves_its_record_with_files_that_check(run: RunDirectory) -> None:
    for name in ALL_STAGES:
        record = run.stage(name).record()
        assert record is not None
        assert record["files"]
        assert run.stage(name).is_done(record["fingerprint"])
        assert run.summary()["stages"][name] == record["facts"]


@pytest.mark.parametrize(("stage", "n_steps"), [("pretrain", PRETRAIN_STEPS), ("finetune", FINETUNE_STEPS)])
def test_the_metrics_have_one_line_for_each_step(run: RunDirectory, stage: str, n_steps: int) -> None:
    lines = (run.path / stage / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["step"] for record in records] == list(range(1, n_steps + 1))
    assert [record["tokens"] for record in records] == [STEP_TOKENS * step for step in range(1, n_steps + 1)]
    assert "evaluation" in records[-1]


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_the_loss_falls_and_the_curve_is_a_picture(run: RunDirectory, stage: str) -> None:
    losses = [record["loss_nats"] for record in read_metrics(run.path / stage / "metrics.jsonl")]
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5])
    root = ElementTree.parse(run.path / stage / "curve.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) > 3


def test_all_suites_are_scored_before_and_after_fine_tuning(run: RunDirectory) -> None:
    scores = run.summary()["stages"]["evaluation"]["scores"]
    assert list(scores) == ["pretrain", "finetune", "preference", "reinforce"]
    for stage, suites in scores.items():
        assert set(suites) == {"comprehension", "reasoning", "facts"}
        for suite, shares in suites.items():
            assert all(0 <= shares[way] <= 1 for way in ("choice", "choice_normalised", "free", "chance"))
            assert (run.path / "evaluation" / f"{suite}-{stage}.json").is_file()


def test_the_lineage_names_every_stage_with_the_checksums_of_its_files(run: RunDirectory) -> None:
    lineage = read_json(run.path / "export" / "lineage.json")
    assert {*lineage, "export"} == set(ALL_STAGES)
    for stage, entry in lineage.items():
        record = run.stage(stage).record()
        assert record is not None
        assert entry["fingerprint"] == record["fingerprint"]
        assert entry["files"] == record["files"]
    exported = sha256_file(run.path / "export" / "model.safetensors")
    assert lineage["reinforce"]["files"]["final/model.safetensors"]["sha256"] == exported


# ------------------------------------------------------------------------------------------------ run again


def test_a_second_run_does_nothing(run: RunDirectory, recipe_path: Path, tmp_path: Path) -> None:
    copy = copy_of(run, tmp_path)
    before, recipe = dates(copy), (copy.path / "recipe.toml").read_bytes()
    run_recipe(recipe_path, tmp_path)
    assert dates(copy) == before
    assert len(before) > 30
    assert (copy.path / "recipe.toml").read_bytes() == recipe


def test_another_rate_of_fine_tuning_repeats_fine_tuning_and_what_comes_after_it_alone(
    run: RunDirectory, recipe_path: Path, tmp_path: Path
) -> None:
    copy = copy_of(run, tmp_path)
    before = dates(copy)
    recipe = load_recipe(recipe_path, {"finetune.lr": 1e-4})
    run_pipeline(recipe, tmp_path, Selection(), Console(file=io.StringIO()))
    assert stages_changed(before, dates(copy)) == ["finetune", "preference", "reinforce", "evaluation", "export"]
    weights = Path("final/model.safetensors")
    assert sha256_file(copy.path / "pretrain" / weights) == sha256_file(run.path / "pretrain" / weights)
    assert sha256_file(copy.path / "finetune" / weights) != sha256_file(run.path / "finetune" / weights)


# ------------------------------------------------------------------------------------------------ in other software


def assert_transformers_agrees(folder: Path, prompts: list[str], n_tokens: int = 32) -> None:
    """Plain transformers gives the same ids, the same greedy continuations, and logits within 1e-4."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    engine = Engine(load_pretrained(folder), Tokenizer.load(folder))
    theirs, their_tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert theirs.dtype == torch.float32
    end_of_text_id, lengths = engine.tokenizer.end_of_text_id, []
    for prompt in prompts:
        ids = engine.tokenizer.encode(prompt)
        assert their_tokenizer(prompt, add_special_tokens=False)["input_ids"] == ids
        ids = ids[:200]
        batch = torch.tensor([ids])
        with torch.inference_mode():
            logits = theirs(batch).logits
            torch.testing.assert_close(engine.model.logits(engine.model(batch)), logits, atol=1e-4, rtol=0)
            # Only the end of the text stops both; the end of a turn would stop an answer after a few tokens.
            continued = theirs.generate(
                batch,
                attention_mask=torch.ones_like(batch),
                max_new_tokens=n_tokens,
                do_sample=False,
                eos_token_id=end_of_text_id,
            )
        assert logits.std() > 0.1
        written = continued[0, len(ids) :].tolist()
        # They hand over the token that ends a text, and ours does not.
        ended = written[-1] == end_of_text_id
        assert (written[:-1] if ended else written) == engine.generate([ids], n_tokens)[0]
        assert ended or len(written) == n_tokens
        lengths.append(len(written))
    assert sum(length == n_tokens for length in lengths) > len(lengths) / 2


def prompts_of_the_world(recipe_path: Path) -> list[str]:
    """Short beginnings, after which a model goes on writing, and two stories with a question."""
    talks = conversations(load_recipe(recipe_path).storyworld.model_copy(update={"seed": 9, "conversations": 24}))
    stories = [talk[0]["content"] for talk in talks if "\n\n" in talk[0]["content"]]
    begun = ["Once upon a time", "There was a kite painted red with Mara", "There was", "There", "Once upon", "The"]
    return [*begun, *stories[:2]]


def test_the_exported_model_is_the_same_model_in_transformers(run: RunDirectory, recipe_path: Path) -> None:
    assert_transformers_agrees(run.path / "export", prompts_of_the_world(recipe_path))


def test_a_chat_is_written_down_in_transformers_as_in_fine_tuning_and_its_turns_end_alike(
    run: RunDirectory, recipe_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = run.path / "export"
    theirs, their_tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    engine = Engine(load_pretrained(folder), Tokenizer.load(folder))
    end_of_turn = engine.tokenizer.special_id("<|end|>")
    n_ended = 0
    for talk in conversations(load_recipe(recipe_path).storyworld.model_copy(update={"conversations": 20})):
        whole = their_tokenizer.apply_chat_template(talk, return_dict=True)["input_ids"]
        assert whole == render(talk, engine.tokenizer)[0]
        prompt = their_tokenizer.apply_chat_template(talk[:-1], add_generation_prompt=True, return_dict=True)[
            "input_ids"
        ]
        prompt = prompt[-256:]
        batch = torch.tensor([prompt])
        reply = theirs.generate(batch, attention_mask=torch.ones_like(batch), max_new_tokens=64, do_sample=False)
        reply_ids = reply[0, len(prompt) :].tolist()
        ours = engine.generate([prompt], 64, stop_ids={end_of_turn})[0]
        assert reply_ids == ours if len(ours) == 64 else reply_ids[:-1] == ours
        n_ended += reply_ids[-1] == end_of_turn
    assert n_ended > 0


def test_a_gpt2_without_fine_tuning_is_the_same_model_in_transformers(tmp_path: Path) -> None:
    path = tmp_path / "gpt2.toml"
    path.write_text(WORLD + GPT2 + PRETRAIN + EVALUATE, encoding="utf-8")
    run_recipe(path, tmp_path, until="pretrain")
    run = run_recipe(path, tmp_path, only="export")
    assert read_json(run.path / "export" / "config.json")["architectures"] == ["GPT2LMHeadModel"]
    assert not (run.path / "finetune").exists()
    assert_transformers_agrees(run.path / "export", prompts_of_the_world(path))


# ------------------------------------------------------------------------------------------------ the commands


def test_show_lists_the_stages_and_the_paths_of_what_was_made(run: RunDirectory) -> None:
    printed = succeed("show", run.path)
    for name in ALL_STAGES:
        assert name in printed
    assert printed.rstrip().endswith(f"all figures: {run.path / 'summary.json'}")


def test_sample_continues_the_prompt_and_the_same_seed_gives_the_same_text(run: RunDirectory) -> None:
    command = ("sample", run.path, "--prompt", "It was a rainy Monday.", "--tokens", "30")
    printed = succeed(*command)
    assert printed.startswith("It was a rainy Monday.")
    assert len(printed) > len("It was a rainy Monday.") + 20
    assert succeed(*command) == printed


def test_eval_prints_the_scores_of_the_run(run: RunDirectory) -> None:
    printed = json.loads(succeed("eval", run.path, "--json"))
    for stage, suites in run.summary()["stages"]["evaluation"]["scores"].items():
        for suite, shares in suites.items():
            assert {way: printed[stage][suite][way] for way in shares} == pytest.approx(shares)


def test_export_writes_the_final_model_and_refuses_a_folder_that_is_in_use(run: RunDirectory, tmp_path: Path) -> None:
    printed = succeed("export", run.path, "--to", tmp_path / "my-model")
    assert str(tmp_path / "my-model") in printed
    assert "reinforce" in printed
    written = {path.name: sha256_file(path) for path in (tmp_path / "my-model").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "lineage.json"} <= set(written)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert written[name] == sha256_file(run.path / "reinforce" / "final" / name)

    refused = hornbook("export", run.path, "--to", tmp_path / "my-model")
    assert refused.returncode == 2
    assert "is not empty" in refused.stderr


def test_three_mistakes_in_a_recipe_are_named_together_with_status_2(tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    mistaken = LLAMA.replace("d_model = 32", "d_model = 33") + PRETRAIN + "lr = -1\n" + FINETUNE + "compil = true\n"
    path.write_text(WORLD + mistaken, encoding="utf-8")
    done = hornbook("run", path, "--runs", tmp_path / "runs")
    assert done.returncode == 2
    for name in ("model.n_heads", "pretrain.lr", "finetune.compil"):
        assert f"{path}: {name}: " in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


# ------------------------------------------------------------------------------------------------ kill -9

KILLED_RUN_STEPS = 120


@pytest.fixture(scope="module")
def ready_to_train(run: RunDirectory, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], tuple[Path, list[str]]]:
    """Makes a new runs folder whose next work is pretraining, and gives it with the command that does it."""
    recipe = tmp_path_factory.mktemp("recipes") / "tiny.toml"
    longer = PRETRAIN.replace(f"tokens = {PRETRAIN_STEPS * STEP_TOKENS}", f"tokens = {KILLED_RUN_STEPS * STEP_TOKENS}")
    recipe.write_text(WORLD + LLAMA + longer, encoding="utf-8")

    def make() -> tuple[Path, list[str]]:
        runs = tmp_path_factory.mktemp("runs")
        copy_of(run, runs)
        for stage in ("pretrain", "finetune", "preference", "reinforce", "evaluation", "export"):
            shutil.rmtree(runs / "tiny" / stage)
        return runs / "tiny" / "pretrain", ["run", str(recipe), "--until", "pretrain", "--runs", str(runs)]

    return make


@pytest.fixture(scope="module")
def undisturbed(ready_to_train: Callable[[], tuple[Path, list[str]]]) -> Path:
    """The folder of a pretraining that nobody killed."""
    folder, command = ready_to_train()
    succeed(*command)
    return folder


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))], ids="moment-{}".format
)
def test_killed_at_any_moment_the_same_command_ends_with_the_same_weights(
    seed: int, undisturbed: Path, ready_to_train: Callable[[], tuple[Path, list[str]]]
) -> None:
    folder, command = ready_to_train()
    log = folder / "metrics.jsonl"
    moment = random.Random(seed)
    last_step_before = moment.randrange(CHECKPOINT_INTERVAL_STEPS + 2, KILLED_RUN_STEPS // 2)
    process = subprocess.Popen(
        [sys.executable, "-m", "hornbook", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    while len(read_metrics(log)) < last_step_before:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.002)
    time.sleep(0.03 * moment.random())  # anywhere in a step, or in the writing of a checkpoint
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the run ended before it could be killed"
    lines_before = log.read_text(encoding="utf-8").splitlines()
    assert last_step_before <= len(read_metrics(log)) < KILLED_RUN_STEPS
    assert not (folder / "stage.json").exists()

    succeed(*command)

    lines = log.read_text(encoding="utf-8").splitlines()
    # The lines hold the seconds of each step, so equal lines were not computed again.
    assert lines[:CHECKPOINT_INTERVAL_STEPS] == lines_before[:CHECKPOINT_INTERVAL_STEPS]
    assert [json.loads(line)["step"] for line in lines] == list(range(1, KILLED_RUN_STEPS + 1))
    assert losses(log) == losses(undisturbed / "metrics.jsonl")
    weights = "final/model.safetensors"
    assert hashlib.sha256((folder / weights).read_bytes()).hexdigest() == sha256_file(undisturbed / weights)


def losses(log: Path) -> list[float]:
    return [record["loss_nats"] for record in read_metrics(log)]


# ------------------------------------------------------------------------------------------------ real stories


@pytest.mark.slow
def test_the_loss_falls_on_real_stories(real_data: Path, tmp_path: Path) -> None:
    stories = real_data / "pretrain" / "tinystories"
    corpus = f"""
        name = "real"
        [corpus]
        source = ["files:{stories / "train.jsonl.gz"}"]
        validation_source = ["files:{stories / "valid.jsonl.gz"}"]
        [tokenizer]
        vocab_size = 1024
    """
    path = tmp_path / "real.toml"
    path.write_text(corpus + LLAMA + PRETRAIN + "[evaluate]\nsuites = []\nsample_tokens = 20\n", encoding="utf-8")
    run = run_recipe(path, tmp_path)
    facts = run.summary()["stages"]
    assert facts["corpus"]["documents"] > 10_000
    assert facts["corpus"]["generator_bits_per_byte"] is None
    assert facts["tokenizer"]["bytes_per_token"] > 2.5
    losses_of_steps = losses(run.path / "pretrain" / "metrics.jsonl")
    assert len(losses_of_steps) == PRETRAIN_STEPS
    assert sum(losses_of_steps[-5:]) < 0.9 * sum(losses_of_steps[:5])
    assert facts["evaluation"]["samples"][0].startswith("Once upon a time")
    assert (run.path / "export" / "model.safetensors").is_file()
