from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hornbook.errors import UserError
from hornbook.evaluation.benchmarks import Item
from hornbook.evaluation.likelihood import Judged, benchmark_scores, encode_pair, judge, paired_test
from hornbook.evaluation.run_benchmarks import Asking, run_benchmarks
from hornbook.inference.engine import Engine
from hornbook.model.huggingface import save_pretrained
from hornbook.model.transformer import Transformer
from hornbook.tokenizer.tokenizer import Tokenizer


def judged(nats: list[float], gold: int = 0, greedy: bool = False) -> Judged:
    choices = ("aaaa", "aa", "a")[: len(nats)]
    return Judged(Item(("",) * len(nats), choices, gold), tuple(nats), (greedy,) * len(nats), False)


def test_a_tie_is_never_right():
    assert judged([-1.0, -2.0]).is_right
    assert not judged([-1.0, -1.0]).is_right
    assert not judged([-1.0, -1.0], gold=1).is_right


def test_long_choices_are_judged_by_their_characters():
    one = judged([-4.0, -3.0])
    assert not one.is_right
    assert one.is_right_normalised


def test_a_lone_choice_is_right_where_it_would_be_written():
    assert judged([-0.1], greedy=True).is_right
    assert not judged([-0.1]).is_right


def test_a_model_that_knows_nothing_scores_nothing(make_model: Callable[..., Transformer], tokenizer: Tokenizer):
    engine = Engine(make_model(std=0.0), tokenizer)
    items = [Item(("The cat",) * 2, ("sat", "ran"), 0), Item(("The",), ("cat",), 0)]
    assert [one.is_right for one in judge(engine, items)] == [False, False]


def test_a_choice_is_scored_after_the_end_of_its_context(make_model: Callable[..., Transformer], tokenizer: Tokenizer):
    engine = Engine(make_model(max_seq_len=24), tokenizer)
    item = Item(("The lamp is here and the town is far away from it. " * 3, ""), ("Mira went home.", "Mira sat."), 0)
    (one,) = judge(engine, [item])
    for place, context in enumerate(item.contexts):
        prompt, choice = encode_pair(context, f" {item.choices[place]}", tokenizer)
        ids = torch.tensor([(prompt + choice)[-25:]])
        with torch.inference_mode():
            table = engine.model.logits(engine.model(ids[:, :-1]))[0].log_softmax(-1)
        expected = sum(table[-len(choice) + k, token].item() for k, token in enumerate(choice))
        assert one.nats[place] == pytest.approx(expected, rel=1e-5)
    assert one.is_cut


def test_blanks_at_the_end_of_a_context_belong_to_the_choice(tokenizer: Tokenizer):
    context, choice = encode_pair("The lamp  ", "is", tokenizer)
    assert tokenizer.decode(context) == "The lamp"
    assert tokenizer.decode(choice) == "  is"


def test_scores_count_items_groups_and_chance():
    ones = [judged([-1.0, -2.0]), judged([-2.0, -1.0]), judged([-1.0, -2.0]), judged([-1.0, -2.0])]
    scores = benchmark_scores(ones, has_length=False)
    assert scores["accuracy"] == 0.75
    assert scores["accuracy_stderr"] == pytest.approx(0.25)
    assert scores["chance"] == 0.5
    assert "normalised" not in scores


def test_the_paired_test_is_mcnemars():
    # Of 10 items that tell, 9 to 1: two-sided, 2 (1 + 10) / 2^10.
    ours, theirs = [True] * 9 + [False] + [True] * 20, [False] * 9 + [True] + [True] * 20
    found = paired_test(ours, theirs)
    assert found["p_value"] == pytest.approx(22 / 1024)
    assert found["difference"] == pytest.approx(8 / 30)
    assert paired_test(ours, ours)["p_value"] == 1.0


def test_two_models_are_compared_in_one_table(
    tmp_path: Path, make_model: Callable[..., Transformer], tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
):
    for name, layers in (("one", 1), ("two", 2)):
        save_pretrained(make_model(n_layers=layers), tmp_path / name, tokenizer.end_of_text_id, tokenizer.pad_id)
        tokenizer.save(tmp_path / name)
    rows = '{"sentence_good": "The lamp is here.", "sentence_bad": "Lamp the here is."}\n'
    (tmp_path / "blimp.jsonl").write_text(rows, encoding="utf-8")
    models = [tmp_path / "one", tmp_path / "two"]
    run_benchmarks(models, Asking("all", tmp_path), False, tmp_path / "items.json", tmp_path / "scores.svg")
    assert "<svg" in (tmp_path / "scores.svg").read_text(encoding="utf-8")
    printed = capsys.readouterr().out
    assert "blimp" in printed
    assert "(1)" in printed
    assert (tmp_path / "items.json").is_file()


def test_a_task_that_is_none_is_the_users_mistake(tmp_path: Path):
    with pytest.raises(UserError, match="--tasks: chess is no benchmark here"):
        run_benchmarks([tmp_path], Asking("chess", tmp_path), True, None, None)
    with pytest.raises(UserError, match="has the file of no benchmark"):
        run_benchmarks([tmp_path], Asking("all", tmp_path), True, None, None)
