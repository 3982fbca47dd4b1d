"""Going on from somebody's model: read it, fit it to its tokenizer, and note where it came from."""

from pathlib import Path

from hornbook.errors import UserError
from hornbook.model.huggingface import load_pretrained
from hornbook.model.origin import ORIGIN_FILE, origin_of
from hornbook.model.transformer import Transformer
from hornbook.model.vocabulary import with_vocabulary_of
from hornbook.run_directory import write_json
from hornbook.stages.context import StageContext
from hornbook.tokenizer.tokenizer import Tokenizer


def start_from(context: StageContext, folder: str, tokenizer: Tokenizer, row_tokens: int | None) -> Transformer:
    """The model in a folder in Hugging Face's layout, with room for every token of `tokenizer`.

    Writes `init_from.json` into the stage's folder: which model it was, down to the checksums of its weights.
    Raises UserError where it cannot be read, or where rows of `row_tokens` are longer than it can take.
    """
    model = load_pretrained(Path(folder))
    if row_tokens is not None and row_tokens > model.config.max_seq_len:
        raise UserError(
            f"{context.stage.name}.row_tokens: is {row_tokens}, but the model in {folder} takes "
            f"{model.config.max_seq_len} tokens at most. Give shorter rows."
        )
    origin = origin_of(Path(folder))
    write_json(context.stage.path / ORIGIN_FILE, origin)
    n_before = model.config.vocab_size
    model = with_vocabulary_of(model, tokenizer.vocab_size)
    added = model.config.vocab_size - n_before
    more = f", {added} tokens added" if added else ""
    context.console.print(f"going on from {folder} ({origin['architecture']}{more})", highlight=False)
    return model
