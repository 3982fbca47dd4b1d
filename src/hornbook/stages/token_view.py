"""`hornbook show RUN --tokens`: a few rows that the run trains on, token by token, and what is learned of them."""

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.text import Text

from hornbook.batching.loader import Loader
from hornbook.batching.packing import IGNORE_INDEX
from hornbook.batching.shards import ShardedDocuments
from hornbook.errors import UserError
from hornbook.recipe import Recipe, load_recipe
from hornbook.recipe_training import PretrainSection
from hornbook.run_directory import open_run
from hornbook.runtime import derive_seed
from hornbook.stages.conversations import read_conversations
from hornbook.tokenizer.chat import Message, render
from hornbook.tokenizer.tokenizer import Tokenizer
from hornbook.tokenizer.view import LEGEND, show_tokens

ROWS_SHOWN = 2
CONVERSATIONS_SHOWN = 3
TOKENS_SHOWN = 300


def show_training_tokens(path: Path, console: Console) -> None:
    """Print the first rows of pretraining and the first conversations of fine-tuning.

    Raises UserError where `path` is not the folder of a run, or its tokens are not made yet.
    """
    run = open_run(path)
    recipe = load_recipe(run.recipe_path)
    console.print(Text(LEGEND, "bright_black"))
    if recipe.pretrain is None:
        tokenizer = Tokenizer.from_published(recipe.origin or path, recipe.tokenizer.special_tokens)
    else:
        shards = sorted(run.stage("tokens").path.glob("train-*.bin"))
        if not shards:
            raise UserError(f"{path}: has no tokens yet. Run its recipe with --until tokens first.")
        tokenizer = Tokenizer.load(run.stage("tokenizer").path)
        _show_pretraining(ShardedDocuments(shards), recipe, recipe.pretrain, tokenizer, console)
    if recipe.finetune is not None:
        conversations = read_conversations(recipe.finetune.source, recipe.storyworld)
        row_tokens = recipe.finetune.row_tokens or recipe.model.max_seq_len
        _show_finetuning(islice(conversations, CONVERSATIONS_SHOWN), row_tokens, tokenizer, console)


def _show_pretraining(
    documents: ShardedDocuments, recipe: Recipe, section: PretrainSection, tokenizer: Tokenizer, console: Console
) -> None:
    row_tokens = section.row_tokens or recipe.model.max_seq_len
    loader = Loader(
        documents,
        row_tokens,
        section.global_batch_tokens // row_tokens,
        derive_seed(recipe.seed, "pretrain"),
        pad_id=tokenizer.pad_id,
        first_in_order=section.order == "corpus",
    )
    batch = loader.next_batch()
    for row in range(min(ROWS_SHOWN, batch.n_rows)):
        ids, members = batch.input_ids[row].tolist(), batch.document_ids[row].tolist()
        # A label is the token after it.
        is_learned = [False, *(label != IGNORE_INDEX for label in batch.labels[row, :-1].tolist())]
        console.rule(f"[bold]pretraining, row {row + 1}[/bold] of {row_tokens:,} tokens", align="left")
        at = 0
        while at < min(row_tokens, TOKENS_SHOWN):
            length = members.count(members[at])
            if ids[at] == tokenizer.pad_id:
                console.print(f"[bold]padding[/bold], {length:,} tokens", highlight=False)
            else:
                console.print(f"[bold]document {members[at] + 1}[/bold], {length:,} tokens", highlight=False)
                _print_tokens(ids[at : at + length], is_learned[at : at + length], tokenizer, console)
            at += length


def _show_finetuning(
    conversations: Iterable[Sequence[Message]], row_tokens: int, tokenizer: Tokenizer, console: Console
) -> None:
    for number, messages in enumerate(conversations, start=1):
        ids, is_learned = render(messages, tokenizer)
        fate = f"{sum(is_learned):,} of {len(ids):,} tokens are learned"
        if len(ids) > row_tokens:
            fate = f"left out, for its {len(ids):,} tokens are more than a row of {row_tokens:,}"
        console.rule(f"[bold]fine-tuning, conversation {number}[/bold]: {fate}", align="left")
        _print_tokens(ids, is_learned, tokenizer, console)


def _print_tokens(ids: list[int], is_learned: list[bool], tokenizer: Tokenizer, console: Console) -> None:
    console.print(show_tokens(ids[:TOKENS_SHOWN], is_learned[:TOKENS_SHOWN], tokenizer), soft_wrap=True)
    if len(ids) > TOKENS_SHOWN:
        console.print(f"… and {len(ids) - TOKENS_SHOWN:,} more tokens", style="bright_black", highlight=False)
