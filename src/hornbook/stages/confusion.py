"""How good a classifier is: accuracy, F1 and which classes it takes for which others, in figures and as a picture."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from hornbook.run_directory import atomic_write
from hornbook.training.curve import with_description

Confusion = list[list[int]]
"""Row: the true class. Column: the predicted one. Both in the order of the classes."""


def confusion_matrix(true: Sequence[int], predicted: Sequence[int], n_classes: int) -> Confusion:
    """How many texts of each class were taken for each."""
    matrix = [[0] * n_classes for _ in range(n_classes)]
    for row, column in zip(true, predicted, strict=True):
        matrix[row][column] += 1
    return matrix


def accuracy(matrix: Confusion) -> float:
    """The share of texts on the diagonal."""
    return sum(matrix[number][number] for number in range(len(matrix))) / sum(map(sum, matrix))


def f1_scores(matrix: Confusion) -> list[float]:
    """For each class the harmonic mean of precision and recall; 0 where it was never right."""
    scores = []
    for number, row in enumerate(matrix):
        n_predicted = sum(other[number] for other in matrix)
        scores.append(2 * row[number] / (sum(row) + n_predicted) if row[number] else 0.0)
    return scores


def draw_confusion(matrix: Confusion, classes: Sequence[str], svg_path: Path, title: str) -> None:
    """The matrix as a picture, coloured by the share of the true class, with the counts written in."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shares = [[count / max(1, sum(row)) for count in row] for row in matrix]
    style: Any = {"font.size": 10, "svg.hashsalt": "hornbook", "svg.fonttype": "none"}
    size = 2.6 + 0.7 * len(classes)
    with matplotlib.rc_context(style):
        figure, axis = pyplot.subplots(figsize=(size, size), layout="constrained")
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for y, row in enumerate(matrix):
            for x, count in enumerate(row):
                colour = "white" if shares[y][x] > 0.6 else "black"
                axis.text(x, y, f"{count:,}", ha="center", va="center", color=colour)
        places = range(len(classes))
        axis.set(title=title, xlabel="predicted", ylabel="true", xticks=places, yticks=places)
        axis.set_xticklabels(classes)
        axis.set_yticklabels(classes)
        drawn = BytesIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None})
        pyplot.close(figure)
    rows = zip(classes, matrix, strict=True)
    told = [
        f"Of {sum(row)} texts of the class {name}, {row[number]} were recognised."
        for number, (name, row) in enumerate(rows)
    ]
    atomic_write(svg_path, with_description(drawn.getvalue().decode(), title, " ".join(told)))
