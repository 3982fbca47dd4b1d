"""The results of a run as a list of blocks: set by Typst as a chapter, or written as Markdown for a blog."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from hornbook.book.figures import ANSWERS
from hornbook.book.run_facts import Run, loss_unit

Block = dict[str, Any]
"""{"kind": "heading", "text"} · {"kind": "paragraph", "text"} · {"kind": "quote", "text"} ·
{"kind": "table", "caption", "columns", "rows"} · {"kind": "figure", "name", "caption"}"""

_STAGE_TITLES = {
    "pretrain": "Pretraining",
    "finetune": "Fine-tuning",
    "preference": "Learning from preferences",
    "reinforce": "Reinforcement learning",
    "classify": "Classification",
}
_OF_CLASSIFIERS = {
    "test_accuracy": "texts of the test that are classed rightly",
    "test_macro_f1": "F1 on the test, mean over the classes",
    "validation_accuracy": "texts of the validation that are classed rightly",
}
_MOST_CLASSES = 10
_TRANSCRIPTS_SHOWN = 4
_LARGE = 1e10  # from here on a number is written with its power of ten


def blocks(run: Run, drawn: Mapping[str, Any]) -> list[Block]:
    """What the run has to show, in the order of its stages. `drawn` are the names of the pictures there are."""
    found = [*_headline(run), *_corpus(run), *_tokens(run), *_model(run)]
    for stage in run.metrics:
        found += _training(run, stage)
    found += [*_scores(run), *_samples(run), *_time(run), *_settings(run)]
    return [block for block in found if block["kind"] != "figure" or block["name"] in drawn]


def heading(text: str) -> Block:
    return {"kind": "heading", "text": text}


def paragraph(text: str) -> Block:
    return {"kind": "paragraph", "text": text}


def figure(name: str, caption: str) -> Block:
    return {"kind": "figure", "name": name, "caption": caption}


def table(caption: str, columns: list[str], rows: list[list[str]]) -> Block:
    return {"kind": "table", "caption": caption, "columns": columns, "rows": rows}


def headline_rows(run: Run) -> list[list[str]]:
    """The few figures by which a run is known: for the cover and for the top of the results."""
    rows = []
    if run.get("pretrain.parameters"):
        rows.append(["parameters", f"{run.get('pretrain.parameters'):,}"])
    if run.get("pretrain.tokens"):
        rows.append(["tokens of pretraining", f"{run.get('pretrain.tokens'):,}"])
    if run.get("pretrain.validation_bits_per_byte"):
        rows.append(["validation, bits per byte", f"{run.get('pretrain.validation_bits_per_byte'):.3f}"])
    if run.get("pretrain.floor_bits_per_byte"):
        rows.append(["the text's own bits per byte", f"{run.get('pretrain.floor_bits_per_byte'):.3f}"])
    scores = run.get("evaluation.scores") or {}
    if scores:
        last = list(scores)[-1]
        for suite, score in scores[last].items():
            rows.append([f"{suite}, free answers", f"{100 * score['free']:.0f}%"])
    if run.facts["seconds"]:
        rows.append(["minutes, all stages", f"{run.facts['derived']['total_minutes']:.1f}"])
    return rows


def _headline(run: Run) -> Iterator[Block]:
    yield heading("At a glance")
    yield table(f"The run {run.facts['name']}.", ["figure", "measured"], headline_rows(run))


def _corpus(run: Run) -> Iterator[Block]:
    corpus = run.get("corpus")
    if not corpus:
        return
    yield heading("The corpus")
    yield paragraph(
        f"{corpus['documents_read']:,} documents were read, {corpus['documents_set_aside']:,} could not be used, "
        f"{corpus['documents_dropped']:,} were dropped, and {corpus['documents']:,} were kept: "
        f"{corpus['documents_bytes']:,} bytes of text. {corpus['validation_documents']:,} of the kept documents "
        "are held back for validation."
    )
    yield figure("funnel", "Documents after each step of curation.")
    yield figure("rules", "Documents dropped by each rule.")
    yield figure("words", "Lengths of the documents that were kept and of those that were dropped.")
    quality = run.get("corpus_report.quality.by_rule")
    if quality:
        rows = [
            [rule.replace("_", " "), f"{found['dropped']:,}", f"{found['dropped_rightly']:,}",
             "" if found["precision"] is None else f"{100 * found['precision']:.0f}%",
             "" if found.get("recall") is None else f"{100 * found['recall']:.0f}%"]
            for rule, found in quality.items() if found["dropped"]
        ]  # fmt: skip
        columns = ["rule", "dropped", "rightly", "precision", "recall"]
        yield table("Each rule against pages of which it is known what is wrong with them. Recall is of what the rule "
                    "is meant for.", columns, rows)  # fmt: skip


def _tokens(run: Run) -> Iterator[Block]:
    if not run.get("tokenizer"):
        return
    yield heading("Tokens")
    text = f"The vocabulary has {run.need('tokenizer.vocab_size'):,} tokens."
    if run.get("tokenizer_report.bytes_per_token"):
        text += (
            f" On held-out text a token stands for {run.get('tokenizer_report.bytes_per_token'):.2f} bytes, and a word "
            f"is {run.get('tokenizer_report.tokens_per_word'):.2f} tokens."
        )
    if run.get("tokens.train_tokens"):
        text += f" The corpus has {run.get('tokens.train_tokens'):,} tokens to train on."
    yield paragraph(text)
    yield figure("compression", "Bytes per token on held-out text of each source.")


def _model(run: Run) -> Iterator[Block]:
    plan = run.get("plan")
    if not plan:
        return
    yield heading("The model")
    text = f"By the plan the model has {plan['n_parameters']:,} parameters"
    measured = run.get("pretrain.parameters")
    if measured:
        text += f"; the trained one has {measured:,}"
    yield paragraph(f"{text}. A token costs {plan['megaflops_per_token']:.2f} million floating point operations.")
    yield figure("parameters", "Parameters by part.")
    yield figure("memory", "Memory at the peak of a pretraining step, as predicted from the recipe.")


def _training(run: Run, stage: str) -> Iterator[Block]:
    facts, derived = run.facts[stage], run.facts["derived"][stage]
    yield heading(_STAGE_TITLES.get(stage, stage.capitalize()))
    rows = [["steps", f"{facts['steps']:,}"], ["tokens", f"{facts['tokens']:,}"]]
    if "first_loss_nats" in derived:
        rows.append([f"loss of the first step, {loss_unit(stage)}", f"{derived['first_loss_nats']:.3f}"])
    if facts["final_loss_nats"] is not None:
        rows.append([f"loss at the end, {loss_unit(stage)}", f"{facts['final_loss_nats']:.3f}"])
    if facts.get("validation_bits_per_byte") is not None:
        rows.append(["validation, bits per byte", f"{facts['validation_bits_per_byte']:.4f}"])
    if facts.get("floor_bits_per_byte") is not None:
        rows.append(["the text's own bits per byte", f"{facts['floor_bits_per_byte']:.4f}"])
    for name, title in _OF_CLASSIFIERS.items():
        if name in facts:
            rows.append([title, f"{100 * facts[name]:.1f}%"])
    if "largest_grad_norm" in derived:
        rows.append(["largest gradient norm", f"{derived['largest_grad_norm']:.2f}"])
    rows.append(["skipped steps", f"{facts['skipped_steps']:,}"])
    if facts.get("tokens_per_second"):
        rows.append(["tokens per second, median", f"{facts['tokens_per_second']:,.0f}"])
    rows.append(["minutes", f"{facts['training_seconds'] / 60:.1f}"])
    yield table(f"{_STAGE_TITLES.get(stage, stage.capitalize())} in figures.", ["figure", "measured"], rows)
    if "confusion" in facts and len(facts["classes"]) <= _MOST_CLASSES:  # more do not fit on a page
        counts = zip(facts["classes"], facts["confusion"], strict=True)
        yield table(
            f"What the classifier took the {facts['test_texts']:,} texts of the test for. Row: the true class; column: "
            "the one that was said.", ["class", *facts["classes"]],
            [[name, *(f"{count:,}" for count in of_class)] for name, of_class in counts],
        )  # fmt: skip
    verdict = facts.get("verdict")
    if verdict:
        yield paragraph(verdict["sentence"])
        yield figure(f"expected-{stage}", f"Expected and measured: {stage}.")
        if verdict["causes"]:
            causes = [[one["name"], one["because"], one["check"]] for one in verdict["causes"]]
            yield table(f"What may be wrong with {stage}, the likeliest first.", ["cause", "because", "check"], causes)
    else:
        yield paragraph("This stage was run without an expected curve, so there is no verdict on it.")
    if stage != "reinforce":  # its loss lies around zero, whatever is learned
        validated = ", and validation" if derived.get("validations") else ""
        yield figure(f"loss-{stage}", f"Loss of {stage}: every step of training{validated}.")
    if stage in ANSWERS:
        yield figure(f"answers-{stage}", f"Answers during {stage}, validated.")
    else:
        yield figure(f"course-{stage}", f"Learning rate and gradient norm of {stage}.")
    if facts.get("plan_score"):
        yield table(f"The plan of {stage}, scored.", ["figure", "predicted", "measured", "off by"], score_rows(facts))
    if derived.get("validations"):
        yield table(
            f"Validation during {stage}.", ["step", "bits per byte"],
            [[f"{one['step']:,}", f"{one['bits_per_byte']:.4f}"] for one in derived["validations"]],
        )  # fmt: skip


def score_rows(facts: Mapping[str, Any]) -> list[list[str]]:
    """What the plan of a stage predicted, what was measured, and the difference in percent."""
    rows = []
    for name, row in facts["plan_score"].items():
        shown = ["" if row[key] is None else _spelled(row[key]) for key in ("predicted", "measured")]
        off_by = "" if row["off_by"] is None else f"{100 * row['off_by']:+.1f}%"
        rows.append([name.replace("_", " "), *shown, off_by])
    return rows


def _scores(run: Run) -> Iterator[Block]:
    by_stage = run.get("evaluation.scores") or {}
    if not any(by_stage.values()):
        return
    yield heading("Scores before and after")
    rows = []
    for suite in dict.fromkeys(suite for of_stage in by_stage.values() for suite in of_stage):
        for stage, of_stage in by_stage.items():
            if suite in of_stage:
                one = of_stage[suite]
                rows.append([suite, stage, f"{100 * one['choice']:.1f} ± {100 * one['choice_stderr']:.1f}",
                             f"{100 * one['free']:.1f} ± {100 * one['free_stderr']:.1f}",
                             f"{100 * one['chance']:.0f}", f"{one['n']:,}"])  # fmt: skip
    yield table("Right answers in percent, ± one standard error.",
                ["suite", "after", "by choice", "free", "guessing", "questions"], rows)  # fmt: skip
    yield figure("scores", "Right answers after each stage; the dashed lines are what guessing gives.")


def _samples(run: Run) -> Iterator[Block]:
    samples = run.get("evaluation.samples") or []
    transcripts = run.get("transcripts") or {}
    if not samples and not transcripts:
        return
    yield heading("What it writes")
    for sample in samples:
        yield paragraph("The base model goes on with the recipe's first words, unedited:")
        yield {"kind": "quote", "text": sample}
    for stage, suites in transcripts.items():
        for suite, answers in suites.items():
            rows = [[_end_of(one["prompt_end"]), one["expected"], one["answer"], "yes" if one["right"] else "no"]
                    for one in answers[:_TRANSCRIPTS_SHOWN]]  # fmt: skip
            yield table(f"The first questions of {suite} after {stage}: the end of each, what is right, what came.",
                        ["question", "expected", "answer", "right"], rows)  # fmt: skip


def _time(run: Run) -> Iterator[Block]:
    if not run.facts["seconds"]:
        return
    yield heading("Time")
    yield paragraph(
        f"All stages together took {run.facts['derived']['total_minutes']:.1f} minutes. Steps of training alone are "
        "part of their stages; what is left there is compiling, validation and checkpoints."
    )
    yield figure("seconds", "Seconds that each stage took.")


def _settings(run: Run) -> Iterator[Block]:
    yield heading("The recipe")
    for section in ("storyworld", "corpus", "tokenizer", "model"):
        settings = run.get(f"recipe.{section}")
        if settings:
            rows = [[name, _plain(value)] for name, value in settings.items() if not isinstance(value, dict)]
            yield table(f"Settings of the section {section}.", ["field", "value"], rows)
    names = ("pretrain", "finetune", "preference", "reinforce", "classify")
    trainings = {name: settings for name in names if (settings := run.get(f"recipe.{name}"))}
    fields = dict.fromkeys(name for settings in trainings.values() for name in settings)
    rows = []
    for field in fields:
        values = [settings.get(field, "") for settings in trainings.values()]
        if not any(isinstance(value, dict) for value in values):
            rows.append([field, *map(_plain, values)])
    if rows:
        yield table("Settings of the trainings.", ["field", *trainings], rows)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) else value if isinstance(value, str) else json.dumps(value)


def _end_of(text: str, characters: int = 90) -> str:
    text = " ".join(text.split())
    return text if len(text) <= characters else f"…{text[-characters:]}"


def _spelled(value: float) -> str:
    """A figure of the plan's score: whole where it is large, to three decimals where it is small."""
    if value >= _LARGE:
        return f"{value:.3e}"
    return f"{value:,.0f}" if value >= 100 else f"{value:,.3f}"
