"""whence's side of edge_attribution.py: a worker. Argument: the folder of the model."""

import sys
from importlib.metadata import version

import torch
from transformers import AutoModelForCausalLM

import whence
from dla_model import Setup, load_setup
from measuring import Case, serve
from whence.methods.circuit_object import Circuit
from whence.methods.edge_attribution import edge_attribution
from whence.model.model import Model


def scored(model: Model, setup: Setup, **options: str) -> Circuit:
    """All edges, from the prompts to the same in another order."""
    metric = whence.logit_difference(int(setup.answers[0]), int(setup.foils[0]))
    return edge_attribution(model, setup.ids, setup.ids.flip(0), metric, **options)  # type: ignore[arg-type]


def size(circuit: Circuit) -> int:
    """Bytes of the edges, example by example and their mean."""
    assert circuit.samples is not None
    return circuit.samples.edge.nbytes + 24 * circuit.weights.nnz


def compared(circuit: Circuit) -> dict[str, torch.Tensor]:
    """One row a target: scores of all edges into it."""
    dense = circuit.weights.dense()
    writers = [row for row, node in enumerate(circuit.nodes) if node.end is None and node.name != "metric"]
    readers = {str(node): row for row, node in enumerate(circuit.nodes) if node.end or node.name in ("mlp", "metric")}
    return {key: dense[row, writers].float() for key, row in readers.items()}


def main() -> None:
    """Load the model, run it once so that it is resident, and wait for requests."""
    torch.set_num_threads(1)
    model = Model(AutoModelForCausalLM.from_pretrained(sys.argv[1], attn_implementation="eager").eval())
    setup = load_setup(sys.argv[1])

    def forward() -> torch.Tensor:
        with torch.no_grad():
            return model.hf(input_ids=setup.ids, use_cache=False).logits

    cases = {
        "forward": Case(forward, lambda logits: logits.nbytes),
        "edges": Case(lambda: scored(model, setup), size, compared),
        "edges, 5 points": Case(lambda: scored(model, setup, method="integrated_gradients"), size),
    }
    cases["forward"].run()
    serve(cases, {name: version(name) for name in ("whence", "torch", "transformers")})


if __name__ == "__main__":
    main()
