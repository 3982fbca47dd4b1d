"""What a run's model can be asked: the held-out conversations that fine-tuning showed answers to."""

from pathlib import Path
from typing import Any

from hornbook.run_directory import read_json

_MOST = 4


def example_questions(run: Path) -> list[str]:
    """How some conversations begin that the run's model was not trained on; nothing where none are kept."""
    path = run / "finetune" / "answers.json"
    if not path.is_file():
        return []
    conversations: list[dict[str, Any]] = read_json(path)
    first = [next(m["content"] for m in one["messages"] if m["role"] == "user") for one in conversations]
    return list(dict.fromkeys(first))[:_MOST]
