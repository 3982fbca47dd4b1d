"""The verbs. Each reads its options, calls the function that does the work, and ends in an exit status.

0: done. 1: the run failed. 2: the input is wrong. 130: stopped with Ctrl-C. A person's mistake gives one
clear message on standard error and never a traceback. Everything heavy is imported by the verb that needs it,
so that help comes at once.
"""

import dataclasses
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hornbook import __version__
from hornbook.errors import FailedElsewhere, RunFailed, UserError

if TYPE_CHECKING:
    from hornbook.options import CheckOptions, EvalOptions, PlanOptions, ReferenceOptions, RunOptions, ScaleOptions
    from hornbook.recipe import Recipe

Options = TypeVar("Options")
RecipeOptions = TypeVar(
    "RecipeOptions", "RunOptions", "PlanOptions", "CheckOptions", "ReferenceOptions", "ScaleOptions"
)


@dataclasses.dataclass(frozen=True)
class Verb:
    """A word of the command line: what it does, an example of its arguments, and the function they go to."""

    sentence: str
    example: str
    function: Callable[[Sequence[str]], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a character that the terminal lacks should not end a conversation
    try:
        _dispatch(arguments)
        sys.stdout.flush()
    except UserError as problem:
        _complain("error: ", problem)
        return 2
    except RunFailed as failure:
        _complain("the run failed: ", failure)
        return 1
    except FailedElsewhere:
        return 1
    except KeyboardInterrupt:
        goes_on = " The same command goes on from where it stopped." if arguments[:1] == ["run"] else ""
        print(f"\nStopped.{goes_on}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output has gone (`hornbook show RUN | head`). Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as problem:
        # A place that turned out not to be readable or writable; what has no name is a bug, and keeps its traceback.
        if problem.filename is None:
            raise
        _complain("error: ", UserError(f"{problem.filename}: {problem.strerror}. Free this place, or name another."))
        return 2
    except SystemExit as end:  # tyro ends so, after help with 0 and after an error in the flags with 2
        return end.code if isinstance(end.code, int) else 2
    return 0


def _complain(label: str, problem: Exception) -> None:
    """One message on standard error, its lines in one column."""
    print(label + str(problem).replace("\n", "\n" + " " * len(label)), file=sys.stderr)


def _dispatch(arguments: Sequence[str]) -> None:
    for argument in arguments:
        readable = argument.encode("utf-8", "replace").decode()
        if argument != readable:  # Python keeps such bytes, but nothing that holds them could be written down
            raise UserError(f"{readable}: is not UTF-8. Spell it, or rename the file, in UTF-8.")
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
    elif arguments[0] == "--version":
        print(f"hornbook {__version__}")
    elif arguments[0] in VERBS:
        VERBS[arguments[0]].function(arguments[1:])
    else:
        from hornbook.problems import nearest

        guess = nearest(arguments[0], VERBS)
        advice = f"Did you mean {guess}?" if guess else f"The commands are: {', '.join(VERBS)}."
        raise UserError(f"{arguments[0]}: is no command. {advice} `hornbook --help` explains them.")


def _overview() -> str:
    lines = [
        "usage: hornbook COMMAND ...",
        "",
        "Hornbook trains a language model from scratch: one recipe in, one language model out.",
        "",
    ]
    for name, verb in VERBS.items():
        lines += [f"  {name:<10}{verb.sentence}", f"  {'':<10}  hornbook {name} {verb.example}"]
    lines += [
        "",
        "`hornbook COMMAND --help` explains a command. `hornbook run RECIPE --help` also shows every field",
        "of that recipe, and each is a flag: hornbook run recipes/quickstart.toml --model.n_layers 6",
    ]
    return "\n".join(lines)


def _run(arguments: Sequence[str]) -> None:
    from hornbook.options import RunOptions

    options, recipe = _parse_with_recipe(RunOptions, "run", arguments)
    from rich.console import Console

    from hornbook.parallel.processes import joined_processes
    from hornbook.pipeline import Selection, run_pipeline
    from hornbook.planning.expected import bring_along

    bring_along(options.recipe, options.runs / recipe.name)
    selection = Selection(only=options.only, start=options.start, until=options.until)
    with joined_processes() as processes:
        run_pipeline(recipe, options.runs, selection, Console(quiet=not processes.is_first), processes=processes)


def _plan(arguments: Sequence[str]) -> None:
    from rich.console import Console

    if "--published" in arguments and not any(argument.endswith(".toml") for argument in arguments):
        from hornbook.planning.published import render_published

        render_published(Console())
        return
    from hornbook.options import PlanOptions

    options, recipe = _parse_with_recipe(PlanOptions, "plan", arguments)
    from hornbook.planning.command import plan

    plan(options, recipe, Console())


def _scale(arguments: Sequence[str]) -> None:
    from hornbook.options import ScaleOptions

    options, recipe = _parse_with_recipe(ScaleOptions, "scale", arguments)
    from rich.console import Console

    from hornbook.scale import scale

    scale(options, recipe, Console(stderr=options.json))


def _reference(arguments: Sequence[str]) -> None:
    from hornbook.options import ReferenceOptions

    options, recipe = _parse_with_recipe(ReferenceOptions, "reference", arguments)
    from rich.console import Console

    from hornbook.reference import record_reference

    record_reference(options, recipe, Console())


def _check(arguments: Sequence[str]) -> None:
    from hornbook.options import CheckOptions

    options, recipe = _parse_with_recipe(CheckOptions, "check", arguments)
    from rich.console import Console

    from hornbook.check import check_recipe

    check_recipe(recipe, options.runs, Console(stderr=options.json), as_json=options.json)


def _show(arguments: Sequence[str]) -> None:
    from hornbook.options import ShowOptions

    options = _parse(ShowOptions, "show", arguments)
    from rich.console import Console

    if options.tokens:
        from hornbook.stages.token_view import show_training_tokens

        show_training_tokens(options.run, Console())
        return
    from hornbook.pipeline import STAGES
    from hornbook.show import show_run

    show_run(options.run, [stage.name for stage in STAGES], Console())


def _sample(arguments: Sequence[str]) -> None:
    from hornbook.options import SampleOptions

    options = _parse(SampleOptions, "sample", arguments)
    from hornbook.inference.commands import Writing, sample

    sample(options.run, options.prompt, Writing(**dataclasses.asdict(options.writing)), options.stage)


def _chat(arguments: Sequence[str]) -> None:
    from hornbook.options import ChatOptions

    options = _parse(ChatOptions, "chat", arguments)
    from hornbook.inference.commands import Writing, chat

    chat(options.run, Writing(**dataclasses.asdict(options.writing)), options.stage)


def _serve(arguments: Sequence[str]) -> None:
    from hornbook.options import ServeOptions

    options = _parse(ServeOptions, "serve", arguments)
    from hornbook.inference.load import EngineOptions
    from hornbook.inference.serve import serve
    from hornbook.inference.serving import Limits

    limits = Limits(
        body_bytes=options.max_body_bytes,
        new_tokens=options.max_tokens,
        rows=options.rows,
        waiting=options.queue,
        seconds=options.seconds,
        context_tokens=options.context,
    )
    key = os.environ.get("HORNBOOK_API_KEY") or None
    engine_options = EngineOptions(options.precision, options.int8, options.drafts)
    serve(options.run, options.host, options.port, limits, key, engine_options, options.stage)


def _eval(arguments: Sequence[str]) -> None:
    from hornbook.options import EvalOptions

    options = _parse(EvalOptions, "eval", arguments)
    _check_what_is_asked(options)
    if options.text is not None:
        from hornbook.evaluation.text_file import measure_text

        measure_text(options.run, options.text, options.int8, options.json)
        return
    if options.harness is not None:
        from hornbook.evaluation.harness import run_harness

        run_harness(options.run, options.harness, options.limit, options.shots, options.int8, options.json, options.to)
        return
    if options.tasks is not None:
        from hornbook.evaluation.run_benchmarks import Asking, run_benchmarks

        models = [options.run, *([options.against] if options.against else [])]
        asking = Asking(options.tasks, options.data, options.limit, options.shots, options.int8)
        run_benchmarks(models, asking, options.json, options.to, options.picture)
        return
    from hornbook.stages.evaluate import evaluate_run

    evaluate_run(options.run, options.int8, options.json)


def _check_what_is_asked(options: "EvalOptions") -> None:
    """Raise UserError where two things are asked for at once, or an option that what is asked for has no use for."""
    from hornbook.run_directory import check_writable

    asked = [name for name in ("text", "harness", "tasks") if getattr(options, name) is not None]
    if len(asked) > 1:
        raise UserError(f"eval: --{' and --'.join(asked)} are asked for at once. Ask for one at a time.")
    what = "core" if options.tasks == "core" else asked[0] if asked else "the run's own questions"
    useful = {
        "text": (),
        "harness": ("limit", "shots", "to"),
        "tasks": ("limit", "shots", "to", "against", "picture"),
        "core": ("limit", "to", "against"),
    }.get(what, ())
    for name in ("limit", "shots", "to", "against", "picture"):
        if getattr(options, name) is not None and name not in useful:
            asked_for = {"core": "--tasks core"}.get(what, f"--{what}" if asked else what)
            raise UserError(f"--{name}: has no meaning for {asked_for}. Leave it out, or name --tasks.")
    if options.limit is not None and options.limit < 1:
        raise UserError(f"--limit: must be 1 or more, but is {options.limit}")
    if options.shots is not None and options.shots < 0:
        raise UserError(f"--shots: must be 0 or more, but is {options.shots}")
    check_writable("--to", options.to)
    check_writable("--picture", options.picture)


def _predict(arguments: Sequence[str]) -> None:
    from hornbook.options import PredictOptions

    options = _parse(PredictOptions, "predict", arguments)
    import json

    from hornbook.stages.classify import predict

    if not options.texts:
        raise UserError("predict: there is no text to tell the class of. Give one or more, in quotes.")
    predicted = predict(options.run, options.texts)
    if options.json:
        print(json.dumps(predicted, indent=2))
        return
    for text, probabilities in zip(options.texts, predicted, strict=True):
        likeliest = max(probabilities, key=probabilities.__getitem__)
        print(f"{likeliest}  {probabilities[likeliest]:.1%}  {text}")


def _export(arguments: Sequence[str]) -> None:
    from hornbook.options import ExportOptions

    options = _parse(ExportOptions, "export", arguments)
    from hornbook.stages.export import export_run

    export_run(options.run, options.to, options.format)


def _world(arguments: Sequence[str]) -> None:
    from hornbook.options import WorldOptions

    options = _parse(WorldOptions, "world", arguments)
    from hornbook.recipe import load_recipe
    from hornbook.run_directory import check_writable
    from hornbook.storyworld.export import write_world

    check_writable("--to", options.to, as_folder=True)
    written = write_world(load_recipe(options.recipe).storyworld, options.to)
    for name, count in written.items():
        print(f"{options.to / name}: {count:,}")


def _book(arguments: Sequence[str]) -> None:
    from hornbook.options import BookOptions

    options = _parse(BookOptions, "book", arguments)
    from hornbook.book.build import build_book
    from hornbook.run_directory import check_writable

    output = options.output or Path(f"book.{options.format}")
    check_writable("--output", output)
    build_book(
        options.run,
        output,
        only_results=options.only == "results",
        format=options.format,
        paper=options.paper,
    )
    print(output)


VERBS = {
    "run": Verb("Train a model: do all stages of a recipe that are not done yet.", "recipes/quickstart.toml", _run),
    "plan": Verb("Say what a recipe will cost, before it runs.", "recipes/gpt2-124m.toml", _plan),
    "scale": Verb("Fit a scaling law to small runs of a recipe.", "recipes/tinystories.toml --flops 1e13", _scale),
    "reference": Verb("Record the curves that a recipe should have.", "recipes/quickstart.toml --seeds 3", _reference),
    "check": Verb("Check a training before it begins, in a minute.", "recipes/quickstart.toml", _check),
    "show": Verb("Show what a run has made: stages, scores, curves.", "runs/quickstart", _show),
    "sample": Verb("Let a trained model continue a text.", 'runs/quickstart --prompt "Once upon a time"', _sample),
    "chat": Verb("Talk with a trained model.", "runs/quickstart", _chat),
    "serve": Verb("Serve a trained model: OpenAI's interface and a chat page.", "runs/quickstart", _serve),
    "eval": Verb(
        "Ask a trained model questions: its recipe's suites, or published benchmarks.", "runs/quickstart", _eval
    ),
    "predict": Verb("Tell the class of a text.", 'runs/spam "You have won a prize!"', _predict),
    "export": Verb("Write the final model for other software.", "runs/quickstart --to my-model --format gguf", _export),
    "world": Verb(
        "Write what the storyworld of a recipe writes, to look at.",
        "recipes/quickstart.toml --to world",
        _world,
    ),
    "book": Verb("Set the book: how all of it works, with this run's figures.", "runs/quickstart -o book.pdf", _book),
}


def _parse(options: type[Options], verb: str, arguments: Sequence[str], recipe_path: str = "") -> Options:
    """The verb's options from the command line. Ends the process where it asks for help or cannot be read."""
    import tyro

    explained = VERBS[verb]
    return tyro.cli(
        options,
        prog=f"hornbook {verb} {recipe_path}".strip(),
        description=f"{explained.sentence} Example: hornbook {verb} {explained.example}",
        args=list(arguments),
        use_underscores=True,
    )


def _parse_with_recipe(
    options: type[RecipeOptions], verb: str, arguments: Sequence[str]
) -> tuple[RecipeOptions, "Recipe"]:
    """The verb's options, and the recipe they name with its fields set as the flags say."""
    path = next((argument for argument in arguments if argument.endswith(".toml")), None)
    if path is None:
        # Without a recipe there are no fields to show: only help or an error can come of it.
        parsed = _parse(options, verb, arguments)
        raise UserError(f"{parsed.recipe}: is no recipe: its name does not end in .toml.")
    from hornbook.flags import given_flags, with_recipe_flags
    from hornbook.recipe import load_recipe

    recipe = load_recipe(path)
    parsed = _parse(with_recipe_flags(options, recipe), verb, arguments, path)
    flags = given_flags(parsed)
    return parsed, load_recipe(path, flags) if flags else recipe
