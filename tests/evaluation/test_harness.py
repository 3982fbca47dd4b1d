"""lm-eval's own evaluator over our engine, where it is installed (the extra `harness`)."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hornbook.errors import UserError
from hornbook.evaluation.benchmarks import read_benchmark
from hornbook.evaluation.harness import make_adapter, run_harness
from hornbook.evaluation.likelihood import judge
from hornbook.inference.engine import Engine
from hornbook.model.huggingface import save_pretrained
from hornbook.model.transformer import Transformer
from hornbook.tokenizer.tokenizer import Tokenizer


@pytest.fixture
def model_folder(tmp_path: Path, make_model: Callable[..., Transformer], tokenizer: Tokenizer) -> Path:
    save_pretrained(make_model(), tmp_path / "model", tokenizer.end_of_text_id, tokenizer.pad_id)
    tokenizer.save(tmp_path / "model")
    return tmp_path / "model"


def local_task(folder: Path) -> Path:
    rows = [{"query": f"Question: {n}?", "choices": [f"one {n}", "two", "three"], "gold": n % 3} for n in range(12)]
    (folder / "arc_easy.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    task = f"""task: local_arc
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder / "arc_easy.jsonl"}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{query}}}}\\nAnswer:"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: gold
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""
    (folder / "local_arc.yaml").write_text(task, encoding="utf-8")
    return folder / "local_arc.yaml"


def test_a_local_task_file_is_scored_as_our_own_scorer_does(
    tmp_path: Path, model_folder: Path, make_model: Callable[..., Transformer], tokenizer: Tokenizer
):
    pytest.importorskip("lm_eval")
    run_harness(model_folder, str(local_task(tmp_path)), None, None, False, True, tmp_path / "scores.json")
    written = json.loads((tmp_path / "scores.json").read_text())
    engine = Engine(make_model(), tokenizer)
    ours = [one.is_right for one in judge(engine, read_benchmark("arc_easy", tmp_path, shots=0))]
    (results,) = written["results"].values()
    assert results["acc,none"] == pytest.approx(sum(ours) / len(ours))


class Asked:
    """A request of the harness."""

    def __init__(self, *args: Any) -> None:
        self.args = args


def test_the_adapter_writes_up_to_the_stop_string(make_model: Callable[..., Transformer], tokenizer: Tokenizer):
    pytest.importorskip("lm_eval")
    engine = Engine(make_model(), tokenizer)
    adapter = make_adapter(engine)
    (whole,) = adapter.generate_until([Asked("The lamp", {"until": [], "max_gen_toks": 12})])
    (ids,) = engine.generate([tokenizer.encode("The lamp")], 12)
    assert whole.encode() == b"".join(map(tokenizer.token_bytes, ids)).decode("utf-8", "replace").encode()
    stop = whole[3:5]
    (cut,) = adapter.generate_until([Asked("The lamp", {"until": [stop], "max_gen_toks": 12})])
    assert cut == whole[: whole.index(stop)]


def test_a_task_that_is_not_there_is_the_users_mistake(model_folder: Path):
    pytest.importorskip("lm_eval")
    with pytest.raises(UserError, match="no task of lm-eval"):
        run_harness(model_folder, "no_such_task_here", None, None, False, False, None)


def test_a_task_that_cannot_be_loaded_is_told_in_a_sentence(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    datasets = pytest.importorskip("lm_eval.api.task").datasets

    def unreachable(*_: Any, **__: Any):
        raise ConnectionError("Couldn't reach 'Rowan/hellaswag' on the Hub\nand more")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    told = r"--harness hellaswag: .* cannot load this \(ConnectionError: Couldn't reach 'Rowan/hellaswag' on the Hub\)"
    with pytest.raises(UserError, match=told):
        run_harness(model_folder, "hellaswag", None, None, False, False, None)
    monkeypatch.undo()
    task = local_task(tmp_path)
    (tmp_path / "arc_easy.jsonl").unlink()
    with pytest.raises(UserError, match=r"cannot load this \(FileNotFoundError: "):
        run_harness(model_folder, str(task), None, None, False, False, None)
