"""`hornbook check`: the checks of `training.preflight`, on the recipe's own model and data, in under a minute.

Where the run's folder holds token shards of the same corpus and tokenizer, those are used. Otherwise a sample of the
sources goes through the same stages in a temporary folder. Either way the run's folder stays as it is.
"""

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.markup import escape

from hornbook.batching.loader import Loader
from hornbook.batching.shards import ShardedDocuments
from hornbook.corpus.files import find_files
from hornbook.corpus.readers import read_documents
from hornbook.errors import RunFailed, UserError
from hornbook.model.config import config_from_recipe
from hornbook.model.huggingface import load_pretrained
from hornbook.model.huggingface_config import read_config
from hornbook.model.init import init_weights
from hornbook.model.transformer import Transformer
from hornbook.model.vocabulary import with_vocabulary_of
from hornbook.objectives.next_token import NextToken
from hornbook.pipeline import Selection, run_pipeline
from hornbook.recipe import Recipe, load_recipe
from hornbook.recipe_data import CorpusSection, StoryworldSection
from hornbook.recipe_training import PretrainSection
from hornbook.run_directory import RunDirectory
from hornbook.runtime import derive_seed, pick_device, pick_dtype
from hornbook.stages.fit import fit_in_memory
from hornbook.tokenizer.tokenizer import Tokenizer
from hornbook.training.preflight import Check, Preflight

EXPLAINED_IN = "docs/TRAINING.md"

_SAMPLE_DOCUMENTS = 400
_SAMPLE_CHARACTERS = 1_000_000
_SAMPLE_VOCAB_SIZE = 1024
_BATCHES = 32
_MOST_ROWS = 512
_MARKS = {True: "[green]pass[/green]", False: "[red]FAIL[/red]", None: "[dim]none[/dim]"}


def check_recipe(recipe: Recipe, runs: Path, console: Console, as_json: bool = False) -> None:
    """Print what each check of the recipe's pretraining found; with `as_json`, as JSON on standard output.

    Raises RunFailed where a check fails, and UserError where there is nothing to check or no data to be had.
    """
    section = recipe.pretrain
    if section is None:
        raise UserError("check: looks at pretraining, and this recipe has no section pretrain.")
    started = time.monotonic()
    found = []
    for check in _checks(recipe, section, runs, console):
        found.append(check)
        if not as_json:
            console.print(
                f"{_MARKS[check.passed]}  [bold]{check.name}[/bold]: {escape(check.sentence)}",
                highlight=False,
                soft_wrap=True,
            )
    failed = [check.name for check in found if check.passed is False]
    seconds = time.monotonic() - started
    if as_json:
        print(
            json.dumps(
                {"seconds": seconds, "failed": failed, "checks": [_as_table(check) for check in found]}, indent=2
            )
        )
    else:
        console.print(f"{len(found)} checks in {seconds:.0f} s; {EXPLAINED_IN} explains each.", style="dim")
    if failed:
        raise RunFailed(f"{len(failed)} of {len(found)} checks failed: {', '.join(failed)}. {EXPLAINED_IN} says more.")


def _as_table(check: Check) -> dict[str, Any]:
    table = asdict(check) | {"explained_in": f"{EXPLAINED_IN}#{check.name.replace(' ', '-')}"}
    table["figures"] = {name: value if math.isfinite(value) else None for name, value in check.figures.items()}
    return table


def _checks(recipe: Recipe, section: PretrainSection, runs: Path, console: Console) -> Iterator[Check]:
    device = pick_device("auto")
    dtype = pick_dtype(section.precision, device)
    if section.init_from is None:
        config = config_from_recipe(recipe.model, recipe.tokenizer.vocab_size)
    else:
        config = read_config(Path(section.init_from))
    fit = fit_in_memory(config, section, device, dtype)
    yield Check("memory", fit.rows > 0, fit.sentence, {"rows_at_once": fit.rows, "rows_tried": fit.most_rows})
    if fit.rows == 0:
        return  # making the model could end this process

    with _data(recipe, runs, console) as run:
        tokenizer = Tokenizer.load(run.stage("tokenizer").path)
        if section.init_from is None:
            model = Transformer(
                config_from_recipe(recipe.model, max(recipe.tokenizer.vocab_size, tokenizer.vocab_size))
            )
            init_weights(model, recipe.seed)
        else:
            model = with_vocabulary_of(load_pretrained(Path(section.init_from)), tokenizer.vocab_size)
        row_tokens = section.row_tokens or model.config.max_seq_len
        rows = section.global_batch_tokens // row_tokens
        loader = Loader(
            ShardedDocuments(sorted(run.stage("tokens").path.glob("train-*.bin"))),
            row_tokens,
            rows,
            derive_seed(recipe.seed, "pretrain"),
            pad_id=tokenizer.pad_id,
            first_in_order=section.order == "corpus",
        )
        batches = [loader.next_batch() for _ in range(max(1, min(_BATCHES, _MOST_ROWS // rows)))]
    yield from Preflight(model.to(device), NextToken(), batches, section, dtype, is_new=section.init_from is None).run()


@contextmanager
def _data(recipe: Recipe, runs: Path, console: Console) -> Iterator[RunDirectory]:
    """A run whose tokenizer and tokens can be read: the recipe's own, or one made of a sample."""
    run = RunDirectory(runs / recipe.name)
    if _has_tokens_of(run, recipe):
        console.print(f"on the tokens in {run.path}", highlight=False, soft_wrap=True)
        yield run
        return
    console.print(
        "no tokens of this recipe yet: on a small sample of its sources, in a temporary folder",
        highlight=False,
        soft_wrap=True,
    )
    with TemporaryDirectory(prefix="hornbook-check-") as folder:
        sample = _sampled(recipe, Path(folder))
        yield run_pipeline(sample, Path(folder), Selection(until="tokens"), Console(quiet=True))


def _has_tokens_of(run: RunDirectory, recipe: Recipe) -> bool:
    if not run.recipe_path.is_file() or any(run.stage(name).record() is None for name in ("tokenizer", "tokens")):
        return False
    made = load_recipe(run.recipe_path)
    return (made.storyworld, made.corpus, made.tokenizer) == (recipe.storyworld, recipe.corpus, recipe.tokenizer)


def _sampled(recipe: Recipe, folder: Path) -> Recipe:
    """The same recipe over a sample: a few hundred documents of each source, and few merges to learn."""
    corpus = recipe.corpus
    sources = tuple(_sample(corpus, source, folder / f"source-{number}") for number, source in enumerate(corpus.source))
    tokenizer = recipe.tokenizer
    changes = {
        "storyworld": _smaller(recipe.storyworld),
        "corpus": corpus.model_copy(
            update={
                "source": sources,
                "weights": (),
                "validation_source": (),
                "validation_fraction": 0.05,
                "decontaminate_against": (),
            }
        ),
        "tokenizer": tokenizer.model_copy(update={"vocab_size": min(tokenizer.vocab_size, _SAMPLE_VOCAB_SIZE)}),
        "evaluate": recipe.evaluate.model_copy(update={"suites": ()}),
        "finetune": None,
    }
    return recipe.model_copy(update=changes)


def _smaller(world: StoryworldSection) -> StoryworldSection:
    counts = {name: count for name, count in world.model_dump().items() if name != "seed"}
    share = min(1.0, _SAMPLE_DOCUMENTS / max(1, sum(counts.values()) - world.conversations))
    return world.model_copy(update={name: math.ceil(count * share) for name, count in counts.items()})


def _sample(corpus: CorpusSection, source: str, folder: Path) -> str:
    """The beginning of a source, as a source of its own."""
    if source == "storyworld":
        return source
    if not source.startswith("files:"):
        raise UserError(
            f"corpus.source: check takes no sample of {source}, which is not on this machine. Bring the run as far as "
            "its tokens first (hornbook run RECIPE --until tokens); check then looks at those."
        )
    folder.mkdir()
    n_documents = n_characters = 0
    with open(folder / "sample.jsonl", "w", encoding="utf-8") as lines:
        for path in find_files(source.removeprefix("files:")):
            for document in read_documents(path, path.name, corpus.text_field):
                if n_documents == _SAMPLE_DOCUMENTS or n_characters > _SAMPLE_CHARACTERS:
                    return f"files:{folder}/*"
                if document.problem is not None:
                    continue
                if document.is_html:
                    (folder / f"page-{n_documents}.html").write_text(document.text, encoding="utf-8")
                else:
                    lines.write(json.dumps({corpus.text_field: document.text}) + "\n")
                n_documents += 1
                n_characters += len(document.text)
    return f"files:{folder}/*"
