"""Memory of long graphs, measured on processes of their own: the largest resident size before and after."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch, whence
from whence.demo import PROMPT, dictionary_path, model_path

torch.set_num_threads(1)
model = whence.Model.from_pretrained(model_path())
transcoders = whence.load_dictionary(dictionary_path("transcoders"))
document = model.batch(PROMPT).ids[0].tolist()
length, memory = int(sys.argv[1]), sys.argv[2] or None
ids = (document * length)[:length]
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
whence.attribution_graph(model, transcoders, ids[:16], [" Austin"])
before = peak()
graph = whence.attribution_graph(model, transcoders, ids, [" Austin"], memory=memory)
assert len(graph.selected_features) == len(graph.active_features)
print(before, peak() - before, graph.certificate.worst)
"""


def measured(length: int, memory: str = "") -> tuple[float, float, float]:
    """MiB before the job, MiB it added, and the worst relative gap."""
    command = [sys.executable, "-c", PROGRAM, str(length), memory]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    before, added, worst = map(float, lines[-3:])
    return before, added, worst


@pytest.mark.slow
def test_a_graph_of_1024_tokens_and_every_node_takes_less_than_4_gb() -> None:
    before, added, worst = measured(1024)
    assert before + added < 4000
    assert worst < 1e-5


@pytest.mark.slow
def test_a_budget_is_kept_where_rows_alone_would_break_it() -> None:
    _, free, _ = measured(400)
    _, added, worst = measured(400, "220MB")
    allowed = 220 * 1.1  # what the interpreter and the allocator keep for themselves is not the job's
    assert added < allowed < free
    assert worst < 1e-5
