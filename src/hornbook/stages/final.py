"""A finished model on disk."""

from pathlib import Path

from hornbook.model.huggingface import save_pretrained
from hornbook.model.transformer import Transformer
from hornbook.tokenizer.chat import END_OF_TURN
from hornbook.tokenizer.tokenizer import Tokenizer


def save_final(folder: Path, model: Transformer, tokenizer: Tokenizer) -> None:
    """The model and its tokenizer in Hugging Face's layout."""
    folder.mkdir(parents=True, exist_ok=True)
    end_of_turn_id = tokenizer.special_id(END_OF_TURN)
    save_pretrained(model, folder, tokenizer.end_of_text_id, tokenizer.pad_id, end_of_turn_id)
    tokenizer.save(folder)
