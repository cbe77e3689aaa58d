import pytest
import torch

from whence.errors import FileFormatError
from whence.results.torch_state import read_state

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.full((40,), 7, dtype=torch.int64)}


def saved(path, content):
    torch.save(content, path)  # noqa: TID251  # the files that the reader is for
    return path


def every(_):
    return True


def test_tensors_come_back_by_name_in_their_order(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).bfloat16()
    found = read_state(saved(tmp_path / "a.pth", module.state_dict()), every)
    assert list(found) == list(module.state_dict())
    assert all(torch.equal(found[name], one) for name, one in module.state_dict().items())
    assert found["0.weight"].dtype == torch.bfloat16


def test_transposed_and_shared_tensors_come_back(tmp_path):
    whole = torch.arange(6.0).reshape(2, 3)
    found = read_state(saved(tmp_path / "a.pth", {"whole": whole, "turned": whole.T, "row": whole[1]}), every)
    assert torch.equal(found["turned"], whole.T)
    assert torch.equal(found["row"], whole[1])


def test_the_bytes_of_what_is_not_wanted_stay_unread(tmp_path):
    file = saved(tmp_path / "a.pth", STATE)
    content, inside = file.read_bytes(), STATE["b"].numpy().tobytes()
    assert content.count(inside) == 1
    file.write_bytes(content.replace(inside, bytes(len(inside))))  # so that its checksum is wrong
    found = read_state(file, lambda name: name == "a.weight")
    assert torch.equal(found["a.weight"], STATE["a.weight"])
    assert found["b"] is None
    with pytest.raises(FileFormatError, match="is damaged"):
        read_state(file, every)


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"a": torch.zeros(1), "step": 3}, {"a": {"b": torch.zeros(1)}}])
def test_anything_but_tensors_by_name_is_refused(tmp_path, content):
    with pytest.raises(FileFormatError, match="is no state dict: it holds something else"):
        read_state(saved(tmp_path / "a.pth", content), every)


def test_a_name_that_is_no_plain_data_is_refused(tmp_path):
    class Odd:
        def __reduce__(self):
            return (print, ("opened",))

    with pytest.raises(FileFormatError, match=r"asks for \w+\.print, which is no plain data"):
        read_state(saved(tmp_path / "a.pth", {"a": Odd()}), every)
