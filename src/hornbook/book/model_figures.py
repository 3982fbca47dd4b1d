"""Pictures of the trained model itself: where its heads look, which words are neighbours, what a step holds in memory.

They are drawn from what pretraining has left of the model (`hornbook.stages.pictures`); older runs have nothing of it.
"""

from typing import TYPE_CHECKING, Any

from hornbook.book.figures import BLUE, GREY, ORANGE, Draw, canvas
from hornbook.book.run_facts import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_HEADS_WITH_NUMBERS = 8
_SQUARE_INCHES = (5.2, 4.3)


def model_drawings(run: Run) -> dict[str, Draw]:
    """The pictures of the model that this run has left something for, by name."""
    drawings: dict[str, Draw] = {
        "memory": memory,
        "habits": habits,
        "neighbours": neighbours,
        "token-lengths": token_lengths,
    }
    for number, _ in enumerate(run.get("pictures.attention.maps") or []):
        drawings[f"attention-{number + 1}"] = lambda run, number=number: attention(run, number)  # type: ignore[misc]
    return drawings


def attention(run: Run, number: int) -> "tuple[Figure, str]":
    """The table of weights of one head on one text: who (row) takes how much from whom (column)."""
    from matplotlib import pyplot

    record = run.need("pictures.attention")
    tokens = [_spelled(token) for token in record["tokens"]]
    drawn = record["maps"][number]
    square = [[*row, *[0.0] * (len(tokens) - len(row))] for row in drawn["weights"]]
    figure, panel = pyplot.subplots(figsize=_SQUARE_INCHES, layout="constrained")
    image = panel.imshow(square, cmap="Greys", vmin=0, vmax=1)
    places = range(len(tokens))
    panel.set_xticks(places, tokens, rotation=90, fontsize=7)
    panel.set_yticks(places, tokens, fontsize=7)
    panel.set(xlabel="is looked at", ylabel="looks")
    panel.grid(visible=False)
    figure.colorbar(image, ax=panel, shrink=0.55, label="weight")
    strongest = max(((row[s], t, s) for t, row in enumerate(square) for s in range(t)), default=(0.0, 0, 0))
    habit = next(h for h in record["heads"] if (h["layer"], h["head"]) == (drawn["layer"], drawn["head"]))["habits"]
    return figure, (
        f"Attention of head {drawn['head']} in layer {drawn['layer']} on {len(tokens)} tokens. It gives "
        f"{habit[drawn['habit']]:.0%} to {drawn['habit']}. The strongest look back is from {tokens[strongest[1]]} to "
        f"{tokens[strongest[2]]}, with a weight of {strongest[0]:.2f}."
    )


def habits(run: Run) -> "tuple[Figure, str] | None":
    """For each habit a table of all heads, layer by layer."""
    heads = run.get("pictures.attention.heads")
    if not heads:
        return None
    from matplotlib import pyplot

    names = list(heads[0]["habits"])
    n_layers, n_heads = max(head["layer"] for head in heads), max(head["head"] for head in heads)
    height = min(6.5, 1.2 + 0.38 * n_layers)
    figure, panels = pyplot.subplots(1, len(names), sharey=True, figsize=(6.0, height), layout="constrained")
    alt = []
    for panel, name in zip(panels, names, strict=True):
        table = [[0.0] * n_heads for _ in range(n_layers)]
        for head in heads:
            table[head["layer"] - 1][head["head"] - 1] = head["habits"][name]
        panel.imshow(table, cmap="Greys", vmin=0, vmax=1, aspect="auto")
        panel.set_title(name, fontsize=8)
        panel.set(xlabel="head")
        panel.set_xticks(range(n_heads), range(1, n_heads + 1))
        panel.set_yticks(range(n_layers), range(1, n_layers + 1))
        panel.grid(visible=False)
        if n_heads <= _MOST_HEADS_WITH_NUMBERS:
            for layer, row in enumerate(table):
                for head, share in enumerate(row):
                    tint = "white" if share > 0.55 else "black"
                    panel.text(head, layer, f"{share:.2f}", ha="center", va="center", fontsize=7, color=tint)
        best = max(heads, key=lambda head: head["habits"][name])
        alt.append(f"{name}: most, {best['habits'][name]:.2f}, in layer {best['layer']}, head {best['head']}")
    panels[0].set(ylabel="layer")
    return figure, "Share of its attention that each head gives to " + "; to ".join(alt) + "."


def neighbours(run: Run) -> "tuple[Figure, str] | None":
    """The cosines of all pairs of some words and their nearest ones: groups are dark squares on the diagonal."""
    record = run.get("pictures.embeddings")
    if not record:
        return None
    from matplotlib import pyplot

    words = record["words"]
    figure, panel = pyplot.subplots(figsize=_SQUARE_INCHES, layout="constrained")
    image = panel.imshow(record["cosines"], cmap="Greys", vmin=0, vmax=1)
    places = range(len(words))
    panel.set_xticks(places, words, rotation=90, fontsize=7)
    panel.set_yticks(places, words, fontsize=7)
    panel.grid(visible=False)
    figure.colorbar(image, ax=panel, shrink=0.55, label="cosine")
    pairs = "; ".join(
        f"{one['word']} is nearest to {one['neighbours'][0]['word']}, {one['neighbours'][0]['cosine']:.2f}"
        for one in record["neighbours"]
    )
    return figure, f"Cosines between {len(words)} words of the embedding: {pairs}."


def token_lengths(run: Run) -> "tuple[Figure, str] | None":
    """How many bytes tokens stand for: shares of the vocabulary, and of the tokens of a text."""
    record = run.get("pictures.tokens")
    if not record:
        return None
    figure, panels = canvas(2, 1.5)
    means = []
    for panel, key, label, tint, hatch in (
        (panels[0], "in_vocabulary", "of the vocabulary", "#9ecae1", ""),
        (panels[1], "in_text", "of the tokens of held-out text", "#fdd0a2", "///"),
    ):
        counts = record[key]
        shares = [100 * count / sum(counts) for count in counts]
        panel.bar(record["of_bytes"], shares, 0.8, color=tint, edgecolor=GREY, linewidth=0.5, hatch=hatch, label=label)
        panel.set(ylabel="percent")
        panel.legend()
        panel.grid(axis="x", visible=False)
        means.append(sum(n * share / 100 for n, share in zip(record["of_bytes"], shares, strict=True)))
    panels[1].set(xlabel=f"bytes of a token, its blank counted ({record['of_bytes'][-1]}: as many or more)")
    panels[1].set_xticks(record["of_bytes"])
    return figure, (
        f"Lengths of tokens in bytes. The mean is {means[0]:.1f} over the vocabulary and {means[1]:.1f} over the "
        "tokens of held-out text."
    )


def memory(run: Run) -> "tuple[Figure, str] | None":
    """What a step of pretraining holds, by part: predicted by the plan, and counted where the run has done so."""
    predicted = run.get("plan.memory_megabytes")
    if not predicted:
        return None
    counted = {part: n_bytes / 1e6 for part, n_bytes in (run.get("pictures.memory.bytes") or {}).items()}
    parts = [part for part in predicted if predicted[part] > 0 or counted.get(part)]
    figure, (panel,) = canvas(1, 0.42 * len(parts) + 0.9)
    looks: dict[str, Any] = {"color": "#9ecae1", "edgecolor": BLUE}
    series = [("predicted", predicted, looks)]
    if counted:
        series.append(("counted", counted, {"color": "#fdd0a2", "edgecolor": ORANGE, "hatch": "///"}))
    width = 0.76 / len(series)
    for number, (label, values, look) in enumerate(series):
        places = [-place + (len(series) - 1) * width / 2 - number * width for place in range(len(parts))]
        bars = panel.barh(places, [values.get(part, 0.0) for part in parts], width, label=label, **look)
        shown = [f"{values[part]:.1f}" if part in values else "in passing, not counted" for part in parts]
        panel.bar_label(bars, shown, padding=3, color="black" if label == "predicted" else GREY)
    panel.set_yticks([-place for place in range(len(parts))], [part.replace("_", " ") for part in parts])
    panel.set(xlabel="megabytes in a step of pretraining")
    panel.margins(x=0.16)
    panel.grid(axis="y", visible=False)
    if counted:
        panel.legend(loc="lower right")
    return figure, "Memory of a step by part, in megabytes: " + "; ".join(
        f"{part.replace('_', ' ')} {predicted[part]:.1f} predicted"
        + (f", {counted[part]:.1f} counted" if part in counted else "")
        for part in parts
    )


def _spelled(token: str) -> str:
    """A token without its blank; a line's end and other unseen characters by their names."""
    return token.strip() or repr(token)[1:-1]
