import torch

from demo.small import exact_saes, untrained
from whence.components.activation import Activation
from whence.components.dictionaries import SAE
from whence.components.sets import DictionarySet
from whence.demo.measure import measure
from whence.demo.sites import record
from whence.demo.tokenizer import documents, vocabulary

IDS = documents(1, 8, 20, vocabulary())


def test_an_exact_dictionary_misses_nothing_and_loses_nothing():
    *layers, whole = measure("exact", exact_saes("mlp_out"), untrained(), IDS)
    assert [score.layer for score in (*layers, whole)] == [0, 1, None]
    for score in (*layers, whole):
        assert score.fvu < 1e-6
        assert abs(score.nats_lost) < 1e-4
        assert score.l0 == 16.0  # of each pair of opposite directions one is active
        assert score.dead == 0.0


def test_a_dictionary_that_writes_the_mean_misses_everything_and_recovers_nothing():
    model = untrained()
    mean = record(model, IDS, "mlp_out").mean(1)
    nothing = torch.zeros(4, 16), torch.full((4,), -1.0), torch.zeros(4, 16)
    found = DictionarySet(tuple(SAE(i, *nothing, mean[i], Activation("relu"), "mlp_out") for i in range(2)))
    for score in measure("mean", found, model, IDS):
        assert abs(score.fvu - 1.0) < 1e-4
        assert abs(score.loss_recovered) < 0.05
        assert (score.l0, score.dead) == (0.0, 1.0)
