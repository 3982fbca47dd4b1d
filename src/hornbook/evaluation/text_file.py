"""`hornbook eval --text`: how many bits a model needs for each byte of any text."""

import json
import math
from pathlib import Path

from hornbook.errors import UserError
from hornbook.inference.engine import Engine
from hornbook.inference.load import TUNED_STAGES, EngineOptions, find_model, load_engine


def measure_text(model: Path, text_file: Path, int8: bool, as_json: bool) -> None:
    """Print the bits per byte of a UTF-8 file as one document. Raises UserError where it is none."""
    try:
        text = text_file.read_bytes().decode("utf-8")  # as it stands: read as text, line ends would change
    except (OSError, UnicodeDecodeError) as problem:
        raise UserError(f"--text {text_file}: is no text in UTF-8 ({problem}). Give a text file.") from problem
    engine = load_engine(find_model(model, ("pretrain", *TUNED_STAGES)), EngineOptions("float32", int8))
    found = text_bits_per_byte(engine, text)
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        print(
            f"{found['bits_per_byte']:.4f} bits per byte ({found['bytes']:,.0f} bytes, {found['tokens']:,.0f} tokens)"
        )


def text_bits_per_byte(engine: Engine, text: str) -> dict[str, float]:
    """The bits of a text over its bytes, every token counted once and seen with half a context before it or more.

    The text begins after the mark of a text's end, as documents do in training, so its first token counts, too;
    its own end does not. Raises UserError where the text is empty.
    """
    ids = engine.tokenizer.encode(text)
    if not ids:
        raise UserError("the text is empty: there is nothing to measure")
    ids = [engine.tokenizer.end_of_text_id, *ids]
    room = engine.model.config.max_seq_len + 1
    stride = max(1, room // 2)
    prompts, rests = [], []
    start = 1
    while start < len(ids):
        end = min(len(ids), room if start == 1 else start + stride)
        prompts.append(ids[max(0, end - room) : start])
        rests.append(ids[start:end])
        start = end
    nats = -sum(engine.score(prompts, rests))
    n_bytes = len(text.encode())
    return {
        "bits_per_byte": nats / math.log(2) / n_bytes,
        "loss_nats": nats / (len(ids) - 1),
        "tokens": float(len(ids) - 1),
        "bytes": float(n_bytes),
    }
