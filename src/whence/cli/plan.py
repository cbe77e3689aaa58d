"""`whence plan`: the time and memory that a graph will take, before it is solved."""

from dataclasses import asdict
from typing import Annotated

import typer

from whence.cli.asking import units
from whence.cli.console import print_json, say, stdout
from whence.cli.loading import DEMO, load
from whence.cli.options import (
    MODEL_HELP,
    Device,
    Dtype,
    Gate,
    Json,
    MaxNodes,
    Memory,
    Order,
    Position,
    Prompt,
    Revision,
    Units,
)


def plan(
    prompt: Prompt,
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = DEMO,
    dictionary: Units = None,
    gate: Gate = None,
    position: Position = -1,
    max_nodes: MaxNodes = None,
    order: Order = "influence",
    memory: Memory = None,
    revision: Revision = None,
    device: Device = None,
    dtype: Dtype = None,
    json: Json = False,
) -> None:
    """Say how long `whence graph` with these options will take and how much memory, without solving anything."""
    from whence.engine.memory import bytes_of
    from whence.methods.plan import plan_graph

    bytes_of(memory)  # what cannot be meant is said before a large model is loaded
    stand_in = units(dictionary, model, gate)
    found = load(model, revision, device, dtype)
    say("counting what is active, in one forward pass")
    planned = plan_graph(found, stand_in, prompt, max_nodes=max_nodes, order=order, position=position, memory=memory)
    if json:
        print_json(asdict(planned) | {"fits": planned.fits})
    else:
        stdout().print(str(planned), markup=False, soft_wrap=True)
