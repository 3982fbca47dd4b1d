"""EleutherAI's lm-evaluation-harness on our engine: `hornbook eval --harness TASKS`, with the extra `harness`.

Its tasks, prompts and grading, our model: no copy in Hugging Face's layout and no transformers is needed. A task is
one of the harness by its name, or a file of a task (.yaml), which may read local data (`dataset_path: json`).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from hornbook.errors import UserError
from hornbook.evaluation.likelihood import encode_pair
from hornbook.inference.engine import Engine
from hornbook.inference.load import TUNED_STAGES, EngineOptions, find_model, load_engine
from hornbook.inference.text import TextStream
from hornbook.run_directory import write_json

_NEW_TOKENS = 256


def run_harness(
    model: Path, tasks: str, limit: int | None, shots: int | None, int8: bool, as_json: bool, to: Path | None
) -> None:
    """Let the harness ask a model its tasks, and print the scores. to: a file for the scores and every sample.

    Raises UserError where the harness is not installed, for a task that it does not have, and for one that it cannot
    load, such as for want of its data.
    """
    try:
        from lm_eval import evaluator
    except ImportError as problem:
        raise UserError("--harness: needs lm-eval. Install it with: pip install 'hornbook[harness]'") from problem
    engine = load_engine(find_model(model, ("pretrain", *TUNED_STAGES)), EngineOptions("float32", int8))
    manager = _task_manager(tasks)
    wanted: list[Any] = []
    for name in (name.strip() for name in tasks.split(",")):
        if name.endswith((".yaml", ".yml")):
            wanted.append(_task_file(Path(name)))
        elif manager.match_tasks([name]):
            wanted += manager.match_tasks([name])
        else:
            raise UserError(f"--harness: {name} is no task of lm-eval, and no file NAME.yaml.")
    found = evaluator.simple_evaluate(
        model=make_adapter(engine),
        tasks=wanted,
        num_fewshot=shots,
        limit=limit,
        task_manager=manager,
        log_samples=to is not None,
        bootstrap_iters=0,
    )
    if to is not None:
        write_json(to, json.loads(json.dumps({"results": found["results"], "samples": found["samples"]}, default=str)))
    if as_json:
        print(json.dumps(found["results"], indent=2, default=str))
    else:
        Console().print(_table(found["results"]))


def _task_manager(asked: str) -> Any:
    """The harness's tasks. Whatever it raises where one cannot be loaded becomes a UserError; asked: what was named."""
    from lm_eval.tasks import TaskManager

    class Tasks(TaskManager):
        def load(self, task_list: Any) -> Any:
            try:
                return super().load(task_list)
            except Exception as problem:  # of the task's own file, of its data, or of the way to them
                what = str(problem).partition("\n")[0]
                raise UserError(
                    f"--harness {asked}: lm-eval cannot load this ({type(problem).__name__}: {what}). The data of its "
                    "tasks come from the Hugging Face hub, unless they were fetched before: go online, or name a file "
                    "NAME.yaml that reads local data."
                ) from problem

    return Tasks()


def _task_file(path: Path) -> dict[str, Any]:
    # Where the harness reads the files of its own command line; plain YAML does not know its `include` and `!function`.
    from lm_eval.tasks._yaml_loader import load_yaml

    if not path.is_file():
        raise UserError(f"--harness: {path}: there is no such file.")
    return load_yaml(path)


def make_adapter(engine: Engine) -> Any:
    """The engine as a model of the harness."""
    from lm_eval.api.model import LM

    class Adapter(LM):
        """What the harness asks of a model: likelihoods and continuations."""

        def loglikelihood(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
            pairs = [encode_pair(*_blank_to_choice(*one.args), engine.tokenizer) for one in requests]
            room = engine.model.config.max_seq_len + 1
            shown = [context[max(0, len(context) + len(choice) - room) :] for context, choice in pairs]
            return engine.score_greedy(shown, [choice for _, choice in pairs])

        def loglikelihood_rolling(self, requests: Sequence[Any], **_: Any) -> list[float]:
            return [rolling_nats(engine, one.args[0]) for one in requests]

        def generate_until(self, requests: Sequence[Any], **_: Any) -> list[str]:
            return [_continue(engine, *one.args) for one in requests]

    return Adapter()


def _blank_to_choice(context: str, choice: str) -> tuple[str, str]:
    """Blanks at the end of a context belong to the choice."""
    bare = context.rstrip()
    return bare, context[len(bare) :] + choice


def rolling_nats(engine: Engine, text: str) -> float:
    """The log-probability of a whole text, in pieces as long as the context, each after the last token before it.

    The harness cuts texts so; `text_bits_per_byte` shows each token more of what stands before it.
    """
    ids = [engine.tokenizer.end_of_text_id, *engine.tokenizer.encode(text)]
    room = engine.model.config.max_seq_len
    starts = range(1, len(ids), room)
    prompts, rests = [], []
    for start in starts:
        end = min(start + room, len(ids))
        # The last piece is filled up with what stands before it.
        prompts.append(ids[max(0, end - room - 1) if start > 1 else 0 : start])
        rests.append(ids[start:end])
    return sum(engine.score(prompts, rests))


def _continue(engine: Engine, prompt: str, options: dict[str, Any]) -> str:
    stops = options.get("until") or []
    stream = TextStream(engine.tokenizer, [stops] if isinstance(stops, str) else stops)
    temperature = float(options.get("temperature") or 0.0) if options.get("do_sample") else 0.0
    ids = engine.tokenizer.encode(prompt) or [engine.tokenizer.end_of_text_id]
    text = ""
    for token in engine.stream(ids, int(options.get("max_gen_toks") or _NEW_TOKENS), temperature):
        text += stream.add(token)
        if stream.has_stopped:
            return text
    return text + stream.finish()


def _table(results: dict[str, dict[str, Any]]) -> Table:
    table = Table(title="lm-eval's scores", title_justify="left")
    for column in ("task", "measure", "value", "±"):
        table.add_column(column, justify="left" if column in ("task", "measure") else "right")
    for task, of_task in results.items():
        for key, value in of_task.items():
            measure, _, filtered = key.partition(",")
            if isinstance(value, int | float) and filtered and not measure.endswith("_stderr"):
                error = of_task.get(f"{measure}_stderr,{filtered}")
                table.add_row(task, measure, f"{value:.4f}", f"{error:.4f}" if isinstance(error, float) else "")
    return table
