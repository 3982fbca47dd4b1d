"""Are our benchmark scores those of EleutherAI's harness with its own `hf` backend? Item by item, on local files.

    python benchmarks/lm_eval_agreement.py MODEL DATA [--limit 500]

MODEL is a folder in Hugging Face's layout, DATA one with the benchmarks' files. Needs `pip install lm-eval[hf]`,
which Hornbook itself does not. The harness runs its own task files, their data sets replaced by the local ones.
Printed for each
task: the items, the largest difference of a log-probability in nats, and on how many items the verdicts differ,
ties apart: there the harness takes the first choice, and Hornbook calls none right.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import yaml
from lm_eval import evaluator, tasks
from lm_eval.models.huggingface import HFLM

from hornbook.evaluation.benchmarks import Item, read_benchmark
from hornbook.evaluation.likelihood import judge
from hornbook.inference.load import EngineOptions, load_engine

TASK_FILES = {
    "lambada_openai": "lambada/lambada_openai.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "blimp": "blimp/_template_yaml",
    "arc_easy": "arc/arc_easy.yaml",
    "piqa": "piqa/piqa.yaml",
}
QUESTION, ANSWER = "Question: ", "\nAnswer:"


def published_row(name: str, item: Item) -> dict[str, Any]:
    """The item as the harness's task reads it from the hub."""
    context, choices = item.contexts[0], list(item.choices)
    question = context.removeprefix(QUESTION).removesuffix(ANSWER)
    if name == "lambada_openai":
        return {"text": f"{context} {choices[0]}"}
    if name == "hellaswag":
        return {"query": context, "choices": choices, "label": item.gold}
    if name == "blimp":
        return {"sentence_good": choices[0], "sentence_bad": choices[1]}
    if name == "piqa":
        return {"goal": question, "sol1": choices[0], "sol2": choices[1], "label": item.gold}
    labels = [str(place) for place in range(len(choices))]
    return {"question": question, "choices": {"text": choices, "label": labels}, "answerKey": str(item.gold)}


def harness_task(name: str, items: list[Item], folder: Path) -> dict[str, Any]:
    """The harness's own task, reading a local file."""
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(published_row(name, item)) + "\n" for item in items), encoding="utf-8")

    class Loader(yaml.SafeLoader):
        """Functions of a task prepare the hub's rows; ours are prepared already."""

    Loader.add_constructor("!function", lambda loader, node: None)
    text = (Path(tasks.__file__).parent / TASK_FILES[name]).read_text(encoding="utf-8")
    task = {key: value for key, value in yaml.load(text, Loader).items() if value is not None}
    for split in ("training_split", "validation_split", "fewshot_split", "dataset_name", "tag"):
        task.pop(split, None)
    files = {"data_files": {"test": str(path)}}
    return task | {"task": name, "dataset_path": "json", "dataset_kwargs": files, "test_split": "test"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--limit", type=int, default=500)
    options = parser.parse_args()
    engine = load_engine(options.model, EngineOptions("float32"))
    suites = {name: read_benchmark(name, options.data, options.limit) for name in TASK_FILES}
    theirs = HFLM(pretrained=str(options.model), device="cpu", dtype="float32", batch_size=16)
    with tempfile.TemporaryDirectory() as folder:
        own_tasks = [harness_task(name, items, Path(folder)) for name, items in suites.items()]
        found = evaluator.simple_evaluate(model=theirs, tasks=own_tasks, log_samples=True, bootstrap_iters=0)
    print(f"{'task':16}{'items':>7}{'largest difference, nats':>26}{'verdicts that differ':>22}{'ties':>6}")
    for name, items in suites.items():
        samples = sorted(found["samples"][name], key=lambda sample: sample["doc_id"])
        largest, n_differ, n_ties = 0.0, 0, 0
        for one, sample in zip(judge(engine, items), samples, strict=True):
            answers = sample["filtered_resps"]
            nats = [float(answer[0]) for answer in (answers if isinstance(answers[0], list | tuple) else [answers])]
            largest = max(largest, *(abs(a - b) for a, b in zip(one.nats, nats, strict=True)))
            is_tie = len(one.nats) > 1 and sorted(one.nats)[-1] - sorted(one.nats)[-2] < 1e-5
            n_ties += is_tie
            n_differ += not is_tie and one.is_right != bool(sample["acc"])
            if "acc_norm" in sample and not is_tie:
                n_differ += one.is_right_normalised != bool(sample["acc_norm"])
        print(f"{name:16}{len(items):>7}{largest:>26.2e}{n_differ:>22}{n_ties:>6}")


if __name__ == "__main__":
    main()
