"""The third stage: the corpus becomes token shards."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy

from hornbook.batching.shards import DocumentTokens, ShardedDocuments, write_shards
from hornbook.corpus.documents import Split, read_texts
from hornbook.run_directory import sha256_file
from hornbook.stages.context import StageContext
from hornbook.tokenizer.tokenizer import Tokenizer


def run(context: StageContext) -> dict[str, Any]:
    """Encode both splits of the corpus into shards. Returns the number of tokens of each."""
    tokenizer_folder = context.run.stage("tokenizer").path
    tokenizer = Tokenizer.load(tokenizer_folder)
    tokenizer_hash = sha256_file(tokenizer_folder / "tokenizer.json")
    facts = {}
    splits: tuple[Split, ...] = ("train", "validation")
    for split in splits:
        with context.console.status(f"encoding the {split} split"):
            documents = _encoded(context.run.stage("corpus").path, split, tokenizer)
            paths = write_shards(context.stage.path, split, documents, tokenizer.vocab_size, tokenizer_hash)
        facts[f"{split}_tokens"] = int(ShardedDocuments(paths).lengths.sum())
    context.console.print(
        f"{facts['train_tokens']:,} tokens to train on, {facts['validation_tokens']:,} to validate with",
        highlight=False,
    )
    return facts


def _encoded(corpus: Path, split: Split, tokenizer: Tokenizer) -> Iterator[DocumentTokens]:
    for texts in read_texts(corpus, split):
        for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
            # The first token of a document is nobody's label, so its bytes are not counted.
            n_bytes = len(text.encode()) - len(tokenizer.token_bytes(ids[0]))
            yield DocumentTokens(numpy.append(ids, numpy.uint32(tokenizer.end_of_text_id)), n_bytes)
