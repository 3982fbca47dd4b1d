"""Preference, reinforcement, classification and adapters as stages of a run, on a model of a thousand weights."""

import io
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from rich.console import Console

from hornbook.cli import main
from hornbook.errors import RunFailed, UserError
from hornbook.model.config import config_from_recipe
from hornbook.model.huggingface import load_pretrained, save_pretrained
from hornbook.model.init import init_weights
from hornbook.model.lora import load_lora, merge_lora
from hornbook.model.transformer import Transformer
from hornbook.model.vocabulary import with_vocabulary_of
from hornbook.objectives.answers import Answer, answer_batch
from hornbook.objectives.next_token import NextToken
from hornbook.pipeline import Selection, run_pipeline
from hornbook.recipe import load_recipe
from hornbook.recipe_data import ModelSection
from hornbook.run_directory import RunDirectory, read_json, write_json
from hornbook.stages import classify
from hornbook.stages.classify import predict
from hornbook.stages.context import StageContext
from hornbook.stages.tuning import attach_adapters
from hornbook.tokenizer.chat import render
from hornbook.tokenizer.tokenizer import Tokenizer
from hornbook.training.metrics import read_metrics

TEXTS = [f"Who has mat {number}? Mira has it, and the cat sat on it." for number in range(40)]
TOP = "[evaluate]\nsuites = []\n"
TRAINING = (
    "row_tokens = 32\ntokens = {tokens}\nglobal_batch_tokens = 256\ncompile = false\nprecision = 'float32'\n"
    "evaluation_interval_steps = 4\ncheckpoint_interval_steps = 2\n"
)
WriteRecipe = Callable[..., Path]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tokenizer = Tokenizer.train(TEXTS, 290, "llama3")
    config = config_from_recipe(ModelSection(n_layers=1, d_model=16, n_heads=2, max_seq_len=32), tokenizer.vocab_size)
    model = Transformer(config)
    init_weights(model, seed=3)
    save_pretrained(model, folder, tokenizer.end_of_text_id, tokenizer.pad_id)
    tokenizer.save(folder)
    return folder


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def run(recipe: Path, to: Path, **overrides: Any) -> tuple[Path, str]:
    """The run's folder, and what was printed."""
    printed = io.StringIO()
    loaded = load_recipe(recipe, overrides)
    made = run_pipeline(loaded, to, Selection(), Console(file=printed, width=200))
    return made.path, printed.getvalue()


def pairs(count: int) -> list[dict[str, str]]:
    return [{"prompt": f"Mat {number}?", "chosen": "Mira.", "rejected": "The cat"} for number in range(count)]


@pytest.fixture
def preference_recipe(base: Path, tmp_path: Path, write_recipe: WriteRecipe) -> Path:
    rows = [*pairs(40), {"prompt": "Mat?", "chosen": "A", "rejected": "A"}, {"prompt": "x " * 40, **pairs(1)[0]}]
    rows[-1]["prompt"] = "x y z " * 40
    source = write_rows(tmp_path / "pairs.jsonl", rows)
    section = f"[preference]\ninit_from = '{base}'\nsource = 'files:{source}'\nlr = 0.01\nvalidation_fraction = 0.2\n"
    return write_recipe(section + TRAINING.format(tokens=2048), TOP)


def test_preference_begins_at_the_logarithm_of_two_and_learns_which_answer_is_better(
    preference_recipe: Path, tmp_path: Path
) -> None:
    folder, printed = run(preference_recipe, tmp_path / "runs")
    facts = read_json(folder / "preference" / "stage.json")["facts"]
    assert facts["first_loss_nats"] == pytest.approx(math.log(2), abs=1e-6)
    assert facts["chosen_likelier"] == facts["accuracy"] == 1
    assert facts["margin"] > 0
    assert (facts["pairs"], facts["pairs_identical"], facts["pairs_too_long"]) == (40, 1, 1)
    assert "1 have the same answer twice" in printed
    last = read_metrics(folder / "preference" / "metrics.jsonl")[-1]
    assert {"accuracy", "margin", "chosen_reward", "rejected_reward", "kl_nats"} <= set(last)
    assert last["kl_nats"] > 0
    assert "<svg" in (folder / "preference" / "curve.svg").read_text()
    assert read_json(folder / "export" / "stage.json")["facts"]["stage"] == "preference"


def test_rows_longer_than_the_model_takes_are_refused_before_anything_is_computed(
    base: Path, preference_recipe: Path, tmp_path: Path
) -> None:
    text = preference_recipe.read_text()
    talks = write_rows(tmp_path / "talks.jsonl", [{"instruction": f"Mat {n}?", "output": "Yes"} for n in range(50)])
    finetune = f"[finetune]\ninit_from = '{base}'\nsource = 'files:{talks}'\n" + TRAINING.format(tokens=256)
    preference = text[text.index("[preference]") :].replace(f"init_from = '{base}'\n", "").replace("= 32", "= 64")
    preference_recipe.write_text(text[: text.index("[preference]")] + finetune + preference)
    with pytest.raises(UserError, match=r"preference.row_tokens: is 64, but the model in .* takes 32 tokens"):
        run(preference_recipe, tmp_path / "runs")
    assert not list((tmp_path / "runs").rglob("metrics.jsonl"))


def test_before_and_after_are_measured_on_as_many_pairs_as_the_recipe_validates_with(
    preference_recipe: Path, tmp_path: Path
) -> None:
    folder, _ = run(preference_recipe, tmp_path / "runs", **{"preference.evaluation_rows": 2, "preference.tokens": 256})
    facts = read_json(folder / "preference" / "stage.json")["facts"]
    assert {facts["chosen_likelier_before"], facts["chosen_likelier"]} <= {0.0, 1.0}
    assert facts["pairs"] == 40


def test_a_given_micro_batch_of_pairs_counts_rows(
    preference_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    forward = Transformer.forward

    def counted(self: Transformer, input_ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        if torch.is_grad_enabled():
            seen.append(len(input_ids))
        return forward(self, input_ids, *rest)

    monkeypatch.setattr(Transformer, "forward", counted)
    run(preference_recipe, tmp_path / "runs", **{"preference.micro_batch_size": 4, "preference.tokens": 256})
    assert max(seen) == 4


def test_another_classifier_is_exported_anew(base: Path, tmp_path: Path, write_recipe: WriteRecipe) -> None:
    rows = [{"text": f"{word} {n}", "label": word} for word in ("mat", "cat") for n in "abcdefghijklmnop"]
    source = write_rows(tmp_path / "texts.jsonl", rows)
    section = f"[classify]\ninit_from = '{base}'\nsource = 'files:{source}'\nvalidation_fraction = 0.2\n"
    recipe = write_recipe(section + "test_fraction = 0.2\n" + TRAINING.format(tokens=256), TOP)
    folder, _ = run(recipe, tmp_path / "runs")
    run(recipe, tmp_path / "runs", **{"classify.lr": 0.05})
    made, exported = ((folder / place / "model.safetensors").read_bytes() for place in ("classify/final", "export"))
    assert made == exported


def test_the_validation_of_pairs_is_of_all_sources(base: Path, tmp_path: Path, write_recipe: WriteRecipe) -> None:
    """In the second source the better answer is the one that the first source calls the worse."""
    turned = [{**pair, "chosen": pair["rejected"], "rejected": pair["chosen"]} for pair in pairs(40)]
    for name, rows in (("a", pairs(40)), ("b", turned)):
        write_rows(tmp_path / f"{name}.jsonl", rows)
    section = (
        f"[preference]\ninit_from = '{base}'\nsource = ['files:{tmp_path}/a.jsonl', 'files:{tmp_path}/b.jsonl']\n"
        "evaluation_rows = 8\nvalidation_fraction = 0.3\n"
    )
    folder, _ = run(write_recipe(section + TRAINING.format(tokens=256), TOP), tmp_path / "runs")
    facts = read_json(folder / "preference" / "stage.json")["facts"]
    assert facts["chosen_likelier_before"] == 0.5


@pytest.mark.parametrize("n_bytes", [0, 4, 500])
def test_a_reference_whose_file_is_damaged_is_computed_again(
    preference_recipe: Path, tmp_path: Path, n_bytes: int
) -> None:
    folder, _ = run(preference_recipe, tmp_path / "runs")
    path = folder / "preference" / "reference.safetensors"
    whole = path.read_bytes()
    (folder / "preference" / "stage.json").unlink()
    path.write_bytes(whole[:n_bytes])
    run(preference_recipe, tmp_path / "runs")
    assert path.read_bytes() == whole


def stopped_after(folder: Path, stage: str, step: int) -> None:
    """Take a finished run back to the checkpoint of a step, as a kill would have left it."""
    import shutil

    stage_folder = folder / stage
    for path in (stage_folder / "checkpoints").iterdir():
        if int(path.name.removeprefix("step-")) > step:
            shutil.rmtree(path)
    (stage_folder / "stage.json").unlink()


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_pretrained(folder / "final").state_dict()


def same_metrics(path: Path) -> list[dict[str, Any]]:
    timings = ("seconds", "tokens_per_second")
    return [{key: value for key, value in record.items() if key not in timings} for record in read_metrics(path)]


def test_preference_resumes_to_the_same_weights(preference_recipe: Path, tmp_path: Path) -> None:
    keep = {"preference.keep_checkpoints": 9}
    folder, _ = run(preference_recipe, tmp_path / "runs", **keep)
    before, records = weights(folder / "preference"), same_metrics(folder / "preference" / "metrics.jsonl")
    stopped_after(folder, "preference", 4)
    run(preference_recipe, tmp_path / "runs", **keep)
    after = weights(folder / "preference")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert same_metrics(folder / "preference" / "metrics.jsonl") == records


def test_a_file_of_identical_pairs_alone_is_refused_in_a_sentence(
    base: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    source = write_rows(tmp_path / "pairs.jsonl", [{"prompt": "Mat?", "chosen": "A", "rejected": "A"}] * 9)
    section = f"[preference]\ninit_from = '{base}'\nsource = 'files:{source}'\n" + TRAINING.format(tokens=256)
    with pytest.raises(UserError, match=r"preference: 0 pairs to train on .* 9 have the same answer twice"):
        run(write_recipe(section, TOP), tmp_path / "runs")


@pytest.fixture
def reinforce_recipe(base: Path, tmp_path: Path, write_recipe: WriteRecipe) -> Path:
    """A model that answers with one of four letters, whatever is asked, is paid for one of them."""
    model, tokenizer = load_pretrained(base), Tokenizer.load(base)
    folder = tmp_path / "talker"
    end = tokenizer.special_id("<|end|>")
    asked, _ = render([{"role": "user", "content": "Letter 7?"}], tokenizer, add_generation_prompt=True)
    lessons = answer_batch([Answer(asked, [*tokenizer.encode(letter), end]) for letter in "abcd"], 32, 0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    for _ in range(40):
        (NextToken().loss_sum(model, lessons)[0] / 8).backward()
        optimizer.step()
        optimizer.zero_grad()
    save_pretrained(model, folder, tokenizer.end_of_text_id, tokenizer.pad_id)
    tokenizer.save(folder)
    rows = [{"prompt": f"Letter {number}?", "answer": "b"} for number in range(40)]
    source = write_rows(tmp_path / "prompts.jsonl", rows)
    section = (
        f"[reinforce]\ninit_from = '{folder}'\nsource = 'files:{source}'\nlr = 0.02\nanswers_per_prompt = 4\n"
        "answer_tokens = 6\nvalidation_prompts = 5\nkl_beta = 0.0\nupdates_per_rollout = 2\n"
    )
    return write_recipe(section + TRAINING.format(tokens=256 * 12), TOP)


def test_reinforcement_begins_at_ratio_one_and_earns_more(reinforce_recipe: Path, tmp_path: Path) -> None:
    folder, printed = run(reinforce_recipe, tmp_path / "runs")
    records = read_metrics(folder / "reinforce" / "metrics.jsonl")
    assert records[0]["ratio"] == pytest.approx(1, abs=1e-5)
    assert records[0]["kl_nats"] == pytest.approx(0, abs=1e-7)
    assert records[1]["ratio"] != records[0]["ratio"]  # the second step with the same answers
    assert records[1]["reward"] == records[0]["reward"]
    assert {"reward", "pass_in_group", "empty", "endless", "answer_tokens", "clipped"} <= set(records[-1])
    rewards = [record["reward"] for record in records]
    assert sum(rewards[-4:]) > sum(rewards[:4])
    facts = read_json(folder / "reinforce" / "stage.json")["facts"]
    assert facts["pass_at_1"] >= facts["pass_at_1_before"]
    # How long its answers will take to write, nobody knows beforehand.
    assert [facts["plan_score"][name]["predicted"] for name in ("tokens_per_second", "seconds")] == [None, None]
    assert facts["plan_score"]["seconds"]["measured"] > 0
    assert set(records[-1]["evaluation"]["validation"]) == {"greedy", "pass_at_1", "pass_at_k"}
    assert "when drawn" in printed


@pytest.mark.parametrize("step", [3, 4])
def test_reinforcement_resumes_to_the_same_weights_within_a_rollout_and_between_two(
    reinforce_recipe: Path, tmp_path: Path, step: int
) -> None:
    options = {"reinforce.keep_checkpoints": 20, "reinforce.checkpoint_interval_steps": 1}
    folder, _ = run(reinforce_recipe, tmp_path / "runs", **options)
    before, records = weights(folder / "reinforce"), same_metrics(folder / "reinforce" / "metrics.jsonl")
    stopped_after(folder, "reinforce", step)
    run(reinforce_recipe, tmp_path / "runs", **options)
    after = weights(folder / "reinforce")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert same_metrics(folder / "reinforce" / "metrics.jsonl") == records


def test_a_model_whose_answers_never_end_is_stopped_with_a_sentence(
    base: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    source = write_rows(tmp_path / "prompts.jsonl", [{"prompt": f"Mat {n}?", "answer": "b"} for n in range(9)])
    section = (
        f"[reinforce]\ninit_from = '{base}'\nsource = 'files:{source}'\nanswers_per_prompt = 4\nanswer_tokens = 2\n"
        "validation_prompts = 2\n"
    )
    with pytest.raises(RunFailed, match="was empty or did not end within 2 tokens"):
        run(write_recipe(section + TRAINING.format(tokens=256 * 30), TOP), tmp_path / "runs")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    lines = [f"ham\tMira has mat {'abcdefghij'[n % 10] * (n // 10 + 1)}" for n in range(40)]
    lines += [f"spam\tcat cat cat {'klmnopqrst'[n % 10] * (n // 10 + 1)}!" for n in range(20)]
    lines += ["ham\tMIRA has mat a."]
    path = tmp_path / "texts.tsv"
    path.write_text("\n".join(lines))
    return path


def classify_recipe(base: Path, texts: Path, write_recipe: WriteRecipe, more: str = "") -> Path:
    section = f"[classify]\ninit_from = '{base}'\nsource = 'files:{texts}'\nlr = 0.02\n{more}"
    return write_recipe(section + TRAINING.format(tokens=256 * 20), TOP)


@pytest.mark.parametrize(
    "more", ["class_weights = 'balanced'\n", "train_layers = 0\nbalance = true\n", "[classify.lora]\nrank = 2\n"]
)
def test_a_classifier_learns_is_tested_on_texts_it_never_saw_and_predicts(
    base: Path, texts: Path, write_recipe: WriteRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: str
) -> None:
    if more.startswith("["):  # a table of its own has to stand last
        path = classify_recipe(base, texts, write_recipe)
        path.write_text(path.read_text() + more)
    else:
        path = classify_recipe(base, texts, write_recipe, more)
    folder, _ = run(path, tmp_path / "runs")
    facts = read_json(folder / "classify" / "stage.json")["facts"]
    assert facts["verdict"]["is_within"], facts["verdict"]["sentence"]
    assert facts["duplicates_left_out"] == 1
    assert facts["test_accuracy"] >= 0.9
    assert sum(map(sum, facts["confusion"])) == facts["test_texts"]
    assert "<svg" in (folder / "classify" / "confusion.svg").read_text()
    assert main(["predict", str(folder), "cat cat cat now!"]) == 0
    assert capsys.readouterr().out.startswith("spam  ")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(folder / "classify" / "final")
    tokenizer = Tokenizer.load(folder / "classify" / "final")
    ids = torch.tensor([[*tokenizer.encode("cat cat"), tokenizer.end_of_text_id]])
    with torch.no_grad():
        probabilities = theirs(ids).logits.softmax(-1)[0].tolist()
    ours = predict(folder, ["cat cat"])[0]
    assert list(ours.values()) == pytest.approx(probabilities, abs=1e-5)
    assert theirs.config.id2label == {0: "ham", 1: "spam"}


def test_the_validation_of_a_few_texts_is_of_all_classes(
    base: Path, texts: Path, write_recipe: WriteRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    measure = classify._measure

    def watched(model: Transformer, texts: classify.EncodedTexts, *rest: int) -> dict[str, float]:
        seen.append(texts.labels)
        return measure(model, texts, *rest)

    monkeypatch.setattr(classify, "_measure", watched)
    recipe = classify_recipe(base, texts, write_recipe, "evaluation_rows = 3\nvalidation_fraction = 0.3\n")
    run(recipe, tmp_path / "runs", **{"classify.tokens": 256})
    assert seen == [[0, 0, 1]]


def test_a_file_with_one_class_is_refused_in_a_sentence(base: Path, tmp_path: Path, write_recipe: WriteRecipe) -> None:
    path = tmp_path / "texts.tsv"
    path.write_text("\n".join(f"ham\tMira has {'abcdefghij'[n]}" for n in range(10)))
    with pytest.raises(UserError, match="there is only the class 'ham', so there is nothing to tell apart"):
        run(classify_recipe(base, path, write_recipe), tmp_path / "runs")


def test_adapters_of_fine_tuning_are_kept_and_merged(base: Path, tmp_path: Path, write_recipe: WriteRecipe) -> None:
    rows = [{"instruction": f"Mat {number}?", "output": "Mira."} for number in range(40)]
    source = write_rows(tmp_path / "talks.jsonl", rows)
    section = f"[finetune]\ninit_from = '{base}'\nsource = 'files:{source}'\nvalidation_fraction = 0.2\nlr = 0.02\n"
    lora = "optimizer = 'adamw'\n[finetune.lora]\nrank = 2\n"
    folder, printed = run(write_recipe(section + TRAINING.format(tokens=2048) + lora, TOP), tmp_path / "runs")
    adapter = read_json(folder / "finetune" / "adapter" / "adapter_config.json")
    assert adapter["r"] == 2
    assert "adapters of rank 2" in printed
    before, after = load_pretrained(base).state_dict(), weights(folder / "finetune")
    assert set(before) == set(after)
    assert torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])
    assert not torch.equal(before["model.layers.0.mlp.up_proj.weight"], after["model.layers.0.mlp.up_proj.weight"])
    assert len(read_json(folder / "finetune" / "answers.json")) == 3


@pytest.fixture
def base_without_talk(base: Path, tmp_path: Path) -> Path:
    """As published: its tokenizer knows the end of a text and nothing of conversations, and neither does it."""
    folder = tmp_path / "without"
    model, tokenizer = load_pretrained(base), Tokenizer.load(base)
    table = read_json(base / "tokenizer.json")
    table["added_tokens"] = [token for token in table["added_tokens"] if token["content"] == "<|endoftext|>"]
    n_tokens = tokenizer.end_of_text_id + 1
    smaller = Transformer(replace(model.config, vocab_size=n_tokens))
    rows = {"model.embed_tokens.weight": model.model.embed_tokens.weight.detach()[:n_tokens]}
    smaller.load_state_dict(model.state_dict() | rows)
    save_pretrained(smaller, folder, tokenizer.end_of_text_id, tokenizer.end_of_text_id)
    write_json(folder / "tokenizer.json", table)
    return folder


def test_adapters_of_a_model_without_the_token_that_ends_a_turn_teach_it_to_end(
    base_without_talk: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    rows = [{"instruction": f"Mat {number}?", "output": "Mira."} for number in range(40)]
    source = write_rows(tmp_path / "talks.jsonl", rows)
    section = f"[finetune]\ninit_from = '{base_without_talk}'\nsource = 'files:{source}'\nvalidation_fraction = 0.2\n"
    lora = "lr = 0.03\noptimizer = 'adamw'\n[finetune.lora]\nrank = 4\n"
    folder, printed = run(write_recipe(section + TRAINING.format(tokens=256 * 40) + lora, TOP), tmp_path / "runs")
    assert "adapters of rank 4 and the rows of 5 added tokens" in printed
    last = read_metrics(folder / "finetune" / "metrics.jsonl")[-1]
    assert last["evaluation"]["answers"]["ended"] == 1
    own, after = load_pretrained(base_without_talk), weights(folder / "finetune")
    n_tokens = own.config.vocab_size
    name = "model.embed_tokens.weight"
    assert torch.equal(after[name][:n_tokens], own.state_dict()[name])
    adapted = with_vocabulary_of(own, n_tokens + 5)
    load_lora(adapted, folder / "finetune" / "adapter")
    merge_lora(adapted)
    assert all(torch.equal(adapted.state_dict()[name], tensor) for name, tensor in after.items())


def test_preference_trains_the_rows_of_added_tokens_beside_adapters_and_resumes(
    base_without_talk: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    source = write_rows(tmp_path / "pairs.jsonl", pairs(40))
    section = f"[preference]\ninit_from = '{base_without_talk}'\nsource = 'files:{source}'\nlr = 0.01\n"
    lora = "keep_checkpoints = 9\n[preference.lora]\nrank = 2\n"
    recipe = write_recipe(section + TRAINING.format(tokens=2048) + lora, TOP)
    folder, _ = run(recipe, tmp_path / "runs")
    facts = read_json(folder / "preference" / "stage.json")["facts"]
    assert facts["first_loss_nats"] == pytest.approx(math.log(2), abs=1e-6)
    before = weights(folder / "preference")
    own = load_pretrained(base_without_talk)
    start = with_vocabulary_of(own, own.config.vocab_size + 5).model.embed_tokens.weight
    end = Tokenizer.load(folder / "preference" / "final").special_id("<|end|>")
    assert not torch.equal(before["model.embed_tokens.weight"][end], start[end])
    stopped_after(folder, "preference", 4)
    run(recipe, tmp_path / "runs")
    after = weights(folder / "preference")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_pipeline_cannot_train_the_rows_of_added_tokens(
    base_without_talk: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    model, tokenizer = load_pretrained(base_without_talk), Tokenizer.from_published(base_without_talk)
    section = f"[finetune]\ninit_from = '{base_without_talk}'\n" + TRAINING.format(tokens=256) + "[finetune.lora]\n"
    recipe = load_recipe(write_recipe(section + "[parallel]\npipeline = 2\n"))
    stage = RunDirectory(tmp_path).stage("finetune")
    context = StageContext(recipe, RunDirectory(tmp_path), stage, Console(file=io.StringIO()))
    with pytest.raises(UserError, match=r"finetune\.lora: the rows of the 5 tokens .* a pipeline cannot do"):
        attach_adapters(context, recipe.finetune, model, tokenizer)


def test_fine_tuning_ends_early_and_keeps_the_best_model(base: Path, tmp_path: Path, write_recipe: WriteRecipe) -> None:
    """Learning far too fast on few texts: the validation soon gets worse for good."""
    rows = [{"instruction": f"Mat {n}?", "output": f"{'Mira the cat sat on it'[n % 20 :]}{n * n}"} for n in range(30)]
    source = write_rows(tmp_path / "talks.jsonl", rows)
    section = (
        f"[finetune]\ninit_from = '{base}'\nsource = 'files:{source}'\nvalidation_fraction = 0.3\nlr = 0.1\n"
        "muon_lr = 0.1\nschedule = 'constant'\npatience = 2\nsample_answers = 0\n"
    )
    folder, printed = run(write_recipe(section + TRAINING.format(tokens=256 * 400), TOP), tmp_path / "runs")
    records = read_metrics(folder / "finetune" / "metrics.jsonl")
    values = [record["evaluation"]["validation"]["bits_per_byte"] for record in records if "evaluation" in record]
    assert len(records) < 400
    assert "No better validation for 2 in a row" in printed
    assert values.index(min(values)) == len(values) - 3
    facts = read_json(folder / "finetune" / "stage.json")["facts"]
    assert facts["validation_bits_per_byte"] == min(values)

    before = weights(folder / "finetune")
    (folder / "finetune" / "curve.svg").unlink()
    _, printed = run(folder.parent.parent / "little.toml", tmp_path / "runs")
    assert f"Going on from step {len(records)} of" in printed
    assert read_metrics(folder / "finetune" / "metrics.jsonl") == records
    assert (folder / "finetune" / "curve.svg").is_file()
    after = weights(folder / "finetune")
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def two_sources(base: Path, folder: Path) -> str:
    """The beginning of a section that fine-tunes on fifty conversations of a source a, and fifty of a source b."""
    for name in ("a", "b"):
        write_rows(folder / f"{name}.jsonl", [{"instruction": f"{name} {n}?", "output": "Yes"} for n in range(50)])
    return f"[finetune]\ninit_from = '{base}'\nsource = ['files:{folder}/a.jsonl', 'files:{folder}/b.jsonl']\n"


def test_weights_of_a_mixture_say_how_often_a_conversation_is_taken(
    base: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    section = two_sources(base, tmp_path) + "weights = [3, 0]\nvalidation_fraction = 0.2\nsample_answers = 0\n"
    folder, printed = run(write_recipe(section + TRAINING.format(tokens=256), TOP), tmp_path / "runs")
    facts = read_json(folder / "finetune" / "stage.json")["facts"]
    n_training = int(printed.split(" conversations to train on")[0].rpartition("\n")[2])
    assert n_training % 3 == 0
    assert 90 < n_training <= 150
    assert facts["conversations"] > n_training


def test_answers_are_shown_to_questions_of_all_sources(base: Path, tmp_path: Path, write_recipe: WriteRecipe) -> None:
    section = two_sources(base, tmp_path) + "validation_fraction = 0.3\nsample_answers = 4\n"
    folder, _ = run(write_recipe(section + TRAINING.format(tokens=256), TOP), tmp_path / "runs")
    asked = [row["messages"][0]["content"][0] for row in read_json(folder / "finetune" / "answers.json")]
    assert len(asked) == 4
    assert set(asked) == {"a", "b"}
