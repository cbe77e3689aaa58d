"""How the demo model makes a verb agree with its subject across a relative clause, and whether that is all it takes.

    The pilots that the guard likes → are, not is

The circuit is found on pairs of sentences that differ in the subject's number, and then checked on other sentences, of
pairs of nouns that the model never saw as subject and distractor: everything outside the circuit says what it says on
average, and the metric should stay what it was. Runs in half a minute on one core, and writes the
circuit and a page to look at it:

    python examples/agreement_circuit.py runs/agreement
"""

import sys
from pathlib import Path

import whence
from whence.results.circuit_faithfulness import CircuitScore

SITES = ("sae_resid_post", "sae_attn_out", "sae_mlp_out")
NODE, EDGE = 0.4, 0.02  # of a total effect of some 15 logits


def agreement_circuit(
    pairs: int = 100, held_out: int = 100
) -> tuple[whence.Circuit, CircuitScore, CircuitScore, CircuitScore]:
    """The circuit of `pairs` pairs; its faithfulness and completeness on others, and the faithfulness of its edges."""
    model = whence.Model.from_pretrained(whence.demo.model_path())
    saes = [whence.load_dictionary(whence.demo.dictionary_path(name)) for name in SITES]
    circuit = whence.feature_circuit(
        model,
        saes,
        whence.demo.agreement_pairs(model, "orc", pairs),
        aggregate="none",  # the subject and the verb are different places
        node_threshold=NODE,
        edge_threshold=EDGE,
    )
    others = whence.demo.agreement_pairs(model, "orc", held_out, held_out=True)
    return (
        circuit,
        circuit.faithfulness(model, saes, others),
        circuit.completeness(model, saes, others),
        circuit.faithfulness(model, saes, others, edges=True),
    )


def main(folder: Path) -> None:
    """Find it, check it, save it, and write a page to look at it."""
    circuit, *scores = agreement_circuit()
    print(circuit)
    print(*scores, sep="\n")
    circuit.save(folder)
    print(circuit.to_html(folder.with_suffix(".html")))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/agreement"))
