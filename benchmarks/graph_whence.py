"""whence's side of graph.py: a worker. Arguments: the setup's folder, threads."""

import sys
from importlib.metadata import version
from pathlib import Path

import torch
from transformers import LlamaForCausalLM

import whence
from graph_bound import gemm
from graph_model import load_setup
from measuring import Case, serve


def nbytes(graph: whence.Graph) -> int:
    """What the caller gets: the blocks of weights."""
    return sum(block.values.nbytes for block in graph.weights)


def main() -> None:
    """Load the model, explain a short prompt so that everything is resident, and wait for requests."""
    folder, threads = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(threads)
    model = whence.Model(LlamaForCausalLM.from_pretrained(folder / "model").eval())
    dictionary = whence.load_dictionary(folder / "transcoders").in_memory()
    setup = load_setup(folder)

    def run(ids: torch.Tensor) -> whence.Graph:
        return whence.attribution_graph(
            model, dictionary, ids, targets=setup.targets, parity="circuit-tracer", max_nodes=None
        )

    run(setup.ids[:4])
    cases = {
        "graph": Case(
            lambda: run(setup.ids),
            nbytes,
            lambda graph: {"adjacency": graph.weights.dense(), "features": graph.active_features},
        ),
        "gemm": Case(gemm, lambda tensor: tensor.nbytes),
    }
    serve(cases, {name: version(name) for name in ("whence", "torch", "transformers")})


if __name__ == "__main__":
    main()
