"""How well the rules did on the storyworld's pages, whose answer is known: precision and recall.

A page should be dropped if a perfect cleaner has nothing to return of it. The precision of a rule is the share
of such pages among those that were dropped for it. Its recall is the share that it dropped of the pages with
the kinds of mess that it is meant to catch. Several rules share a kind: spam is told by its keywords, its
repetition or not at all, and no rule is meant to catch all of it alone.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import pyarrow
import pyarrow.compute

from hornbook.corpus.decontaminate import CONTAMINATED
from hornbook.corpus.deduplicate import DUPLICATE, NEAR_DUPLICATE
from hornbook.corpus.filters import MEASURES
from hornbook.corpus.mixing import NOT_TAKEN
from hornbook.recipe_data import CorpusSection

# What each rule is meant to catch, by the labels of hornbook.storyworld.web. A rule that is not here is meant for
# mess that the world does not have, such as programs, lists or repeated paragraphs, so its recall is not known.
MEANT_FOR: dict[str, tuple[str, ...]] = {
    "empty": ("empty",),
    "min_words": ("too_short",),
    "min_sentences": ("too_short",),
    "min_stop_words": ("other_language", "spam"),
    "language": ("other_language",),
    "max_symbol_to_word_ratio": ("spam",),
    "min_punctuated_line_fraction": ("spam",),
    "max_repeated_line_character_fraction": ("spam",),
    **{name: ("spam",) for name in MEASURES if "gram_" in name or name.startswith("max_duplicate_line_")},
    DUPLICATE: ("exact_duplicate",),
    NEAR_DUPLICATE: ("near_duplicate",),
}
# These judge no quality: a page that gives away a question may be a good one, and the labels cannot say.
_NO_QUALITY = {CONTAMINATED, NOT_TAKEN}


class Quality:
    """Right and wrong decisions on pages whose answer is known."""

    def __init__(self, corpus: CorpusSection) -> None:
        self._rules = _rules_applied(corpus)
        self._by_label: dict[str, Counter[str]] = defaultdict(Counter)
        self._dropped: dict[str, Counter[str]] = defaultdict(Counter)
        self._caught: dict[str, Counter[str]] = defaultdict(Counter)
        self._total: Counter[str] = Counter()

    def add(self, kept: pyarrow.Table, dropped: pyarrow.Table) -> None:
        """Count the labelled pages of one table, which was parted into those kept and those dropped."""
        for table, fate in ((kept, "kept"), (dropped, "dropped")):
            labelled = table.filter(pyarrow.compute.greater(pyarrow.compute.list_value_length(table["labels"]), 0))
            for row in labelled.select(["labels", "reasons", "is_wanted", "is_restored"]).to_pylist():
                reasons = set(row["reasons"]) - _NO_QUALITY if fate == "dropped" else set()
                if fate == "dropped" and not reasons:
                    continue
                if reasons & {DUPLICATE, NEAR_DUPLICATE}:
                    reasons.add("deduplication")
                worth = "wanted" if row["is_wanted"] else "unwanted"
                self._total[f"{fate}_{worth}"] += 1
                for label in row["labels"]:
                    self._by_label[label].update(documents=1, **{fate: 1})
                    if row["is_wanted"]:
                        self._by_label[label].update(restored_exactly=int(row["is_restored"] and fate == "kept"))
                for reason in reasons:
                    self._dropped[reason][worth] += 1
                    self._caught[reason].update(row["labels"])

    def finish(self) -> dict[str, Any] | None:
        """The figures over all rules, for each rule that the recipe applies, and for each label.

        Precision is None where nothing was dropped, recall where no page has a label that the rule is meant for.
        `meant_for` has, for each such label, how many pages have it and how many of them the rule caught. None if
        there is no labelled page.
        """
        if not self._total:
            return None
        rightly = self._total["dropped_unwanted"]
        rules = sorted({*self._rules, *self._dropped} - {"deduplication"})
        copies = MEANT_FOR[DUPLICATE] + MEANT_FOR[NEAR_DUPLICATE] if DUPLICATE in self._rules else ()
        return {
            "pages": self._total.total(),
            "precision": _share(rightly, rightly + self._total["dropped_wanted"]),
            "recall": _share(rightly, rightly + self._total["kept_unwanted"]),
            "by_rule": {rule: self._of_rule(rule, MEANT_FOR.get(rule, ())) for rule in rules},
            "deduplication": self._of_rule("deduplication", copies),
            "by_label": {label: dict(counts) for label, counts in sorted(self._by_label.items())},
        }

    def _of_rule(self, rule: str, labels: Iterable[str]) -> dict[str, Any]:
        dropped, caught = self._dropped[rule], self._caught[rule]
        meant_for = {
            label: {"documents": self._by_label[label]["documents"], "caught": caught[label]}
            for label in labels
            if label in self._by_label
        }
        return {
            "dropped": dropped.total(),
            "dropped_rightly": dropped["unwanted"],
            "precision": _share(dropped["unwanted"], dropped.total()),
            "recall": _share(
                sum(counts["caught"] for counts in meant_for.values()),
                sum(counts["documents"] for counts in meant_for.values()),
            ),
            "meant_for": meant_for,
        }


def _rules_applied(corpus: CorpusSection) -> list[str]:
    """All rules for which the recipe lets a page be dropped."""
    rules = ["empty", *(name for name in (*MEASURES, "language") if getattr(corpus.filters, name) is not None)]
    if corpus.deduplicate != "none":
        rules.append(DUPLICATE)
    if corpus.deduplicate == "minhash":
        rules.append(NEAR_DUPLICATE)
    return rules


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
