from agreement_circuit import agreement_circuit


def test_a_twentieth_of_the_active_units_makes_the_verb_agree_across_a_clause() -> None:
    circuit, nodes, left, edges = agreement_circuit(pairs=32, held_out=100)
    assert (len(nodes.model), nodes.settings["ablation"], nodes.settings["errors"]) == (100, "mean", "default")
    assert nodes.value > 0.9
    assert nodes.share < 0.05
    assert abs(left.value) < 0.1  # what is outside the circuit cannot do it
    assert edges.value > 0.9
    assert (edges.edges or 0) < 600
    assert {circuit.slots[node.position] for node in circuit.nodes if node.position is not None} == {"subject", "verb"}
