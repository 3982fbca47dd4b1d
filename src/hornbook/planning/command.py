"""`hornbook plan`, from its options to what is printed, drawn and written."""

from pathlib import Path
from typing import Protocol

from rich.console import Console

from hornbook.errors import UserError
from hornbook.planning.expected import beside
from hornbook.planning.machine import Machine
from hornbook.planning.picture import draw_memory
from hornbook.planning.plan import advised_fields, plan_recipe
from hornbook.planning.published import render_published
from hornbook.planning.write_back import write_fields
from hornbook.recipe import Recipe
from hornbook.run_directory import check_writable


class Options(Protocol):
    """What is read of the verb's options (hornbook.options.PlanOptions, which stands above this room)."""

    recipe: Path
    flops_per_second: float | None
    gpu: str | None
    gpus: int
    utilisation: float | None
    price: float | None
    budget: float | None
    write: bool
    picture: Path | None
    json: bool
    published: bool


def plan(options: Options, recipe: Recipe, console: Console) -> None:
    """Print the plan of a recipe; draw it and write its advice where that is asked for."""
    check_writable("--picture", options.picture)
    machine = Machine(
        options.flops_per_second, options.gpu, options.gpus, options.price, options.budget, options.utilisation
    )
    reference, law = beside(options.recipe)
    made = plan_recipe(recipe, machine=machine, reference=reference, law=law)
    if options.json:
        print(made.to_json())
        console = Console(stderr=True)  # standard output is JSON alone
    else:
        made.render(console)
    if options.published:
        render_published(console)
    if options.picture is not None:
        draw_memory(made, options.picture)
        console.print(f"the memory of one device: {options.picture}", highlight=False)
    if options.write:
        fields = advised_fields(made, recipe)
        if not fields:
            raise UserError(
                "plan --write: these devices cannot do it, or their memory is not known (--gpu names one), so there is "
                "nothing to write."
            )
        write_fields(options.recipe, fields)
        console.print(f"written into {options.recipe}: {', '.join(fields)}", highlight=False, soft_wrap=True)
