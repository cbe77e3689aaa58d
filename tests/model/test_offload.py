"""Offloading: what is away is away, what comes back is the same, and nothing in between computes with nothing."""

import errno
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import jaxtyping
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.testing._internal.two_tensor import TwoTensor

from families import fresh
from whence.errors import FileFormatError, WhenceError
from whence.model.model import Model
from whence.model.offload import offloaded

PLACES = ["cpu", "disk"]


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)).eval()


Kept = list[tuple[Tensor, Tensor, tuple[Any, ...]]]


def held(*modules: nn.Module) -> list[Tensor]:
    return [t for module in modules for t in (*module.parameters(), *module.buffers())]


def about(tensor: Tensor) -> tuple[Any, ...]:
    return type(tensor), tensor.dtype, tensor.device, tensor.stride(), tensor.requires_grad


def kept(*modules: nn.Module) -> Kept:
    """Every parameter and buffer, with a copy of its values and what else is to stay the same."""
    return [(t, t.detach().clone(), about(t)) for t in held(*modules)]


def same(before: Kept, *modules: nn.Module) -> bool:
    """Whether the modules hold the same objects with the same values, bit for bit."""
    return len(held(*modules)) == len(before) and all(
        now is then and torch.equal(now, values) and about(now) == said
        for now, (then, values, said) in zip(held(*modules), before, strict=True)
    )


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments reach the function as they would outside tests, where nobody checks their types for it."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def live_bytes(module: nn.Module) -> int:
    return sum(t.nbytes for t in held(module) if t.device.type != "meta")


CONTAINERS: dict[str, Callable[[nn.Sequential], Any]] = {
    "module": lambda net: net[0],
    "sequential": lambda net: net,
    "list": list,
    "tuple": tuple,
    "ModuleList": lambda net: nn.ModuleList(net),
    "ModuleDict": lambda net: nn.ModuleDict({"first": net[0], "others": net[1:]}),
    "nested Sequential": lambda net: nn.Sequential(OrderedDict(inner=nn.Sequential(net[0], net[1]), last=net[2])),
    "a module and its parent": lambda net: [net[0], net, net[2]],
}


@pytest.mark.parametrize("to", PLACES)
@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_comes_back_bit_for_bit(container: str, to: Any) -> None:
    whole, x = net(), torch.randn(3, 4)
    before, expected = kept(whole), whole(x)
    with offloaded(CONTAINERS[container](whole), to):
        if to == "disk":
            assert whole[0].weight.device.type == "meta"
            assert container == "module" or live_bytes(whole) == 0
        else:
            assert torch.equal(whole(x), expected)  # what is on the CPU already stays, and runs
    assert same(before, whole)
    assert torch.equal(whole(x), expected)


def test_none_changes_nothing() -> None:
    whole = net()
    pointers = [p.data_ptr() for p in whole.parameters()]
    with offloaded(whole, None):
        assert [p.data_ptr() for p in whole.parameters()] == pointers


def test_what_is_on_the_cpu_already_is_not_copied_there() -> None:
    whole = net()
    pointers = [p.data_ptr() for p in whole.parameters()]
    with offloaded(whole, "cpu"):
        assert [p.data_ptr() for p in whole.parameters()] == pointers


@pytest.mark.parametrize("to", PLACES)
def test_errors_inside_pass_and_everything_is_back(to: Any, tmp_path: Path) -> None:
    whole = net()
    before = kept(whole)
    with pytest.raises(KeyError, match="inside"), offloaded(whole, to, folder=tmp_path):
        raise KeyError("inside")
    assert same(before, whole)
    assert not list(tmp_path.iterdir())


def test_blocks_within_blocks_come_back_from_the_inside_out() -> None:
    whole = net()
    before = kept(whole)
    with offloaded(whole[0], "disk"):
        with offloaded(whole, "disk"), offloaded(whole, "cpu"):
            assert live_bytes(whole) == 0
        assert whole[0].weight.device.type == "meta"
        assert torch.equal(whole[2].weight, before[4][1])
    assert same(before, whole)


def test_memory_falls_by_the_weights_and_their_storages_are_freed(tmp_path: Path) -> None:
    layer = nn.Linear(64, 64)
    storage = layer.weight.untyped_storage()
    assert storage.nbytes() == 64 * 64 * 4
    watched = storage._weak_ref()
    del storage
    try:
        with offloaded(layer, "disk", folder=tmp_path):
            assert live_bytes(layer) == 0
            assert torch.UntypedStorage._expired(watched)
            written = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
            assert 64 * 64 * 4 + 64 * 4 <= written < 64 * 64 * 4 + 64 * 4 + 1000
    finally:
        torch.UntypedStorage._free_weak_ref(watched)


# ---------------------------------------------------------------- what is shared
def test_one_parameter_in_two_modules_stays_one() -> None:
    first, last = nn.Embedding(7, 3), nn.Linear(3, 7, bias=False)
    last.weight = first.weight
    before = kept(first, last)
    with offloaded([first, last], "disk"):
        assert first.weight is last.weight
        assert first.weight.device.type == "meta"
    assert same(before, first, last)
    assert first.weight is last.weight


def test_two_parameters_on_one_storage_still_share_it() -> None:
    fused = torch.randn(6, 4)
    one, other = nn.Linear(4, 3, bias=False), nn.Linear(4, 4, bias=False)
    one.weight, other.weight = nn.Parameter(fused[:3]), nn.Parameter(fused[2:])
    before = kept(one, other)
    with offloaded([one, other], "disk"):
        pass
    assert same(before, one, other)
    with torch.no_grad():
        one.weight[2] = 5.0  # the row that both have
    assert torch.equal(other.weight[0], torch.full((4,), 5.0))


def test_a_small_view_of_a_large_storage_takes_only_its_own_bytes_along(tmp_path: Path) -> None:
    file = torch.randn(10_000)
    layer = nn.Linear(4, 3, bias=False)
    layer.weight = nn.Parameter(file[101:113].view(3, 4))
    before = kept(layer)
    with offloaded(layer, "disk", folder=tmp_path):
        assert sum(file.stat().st_size for file in tmp_path.rglob("*.safetensors")) < 300
    assert same(before, layer)
    assert torch.equal(layer.weight.flatten(), file[101:113])


def test_what_someone_else_holds_of_a_weight_keeps_its_values() -> None:
    layer = nn.Linear(4, 3)
    alias = layer.weight.detach()
    values = alias.clone()
    with offloaded(layer, "disk"):
        assert torch.equal(alias, values)
    assert torch.equal(alias, values)


def test_strides_dtypes_and_gradients_come_back() -> None:
    module = nn.Module()
    module.transposed = nn.Parameter(torch.randn(3, 5).T)
    module.expanded = nn.Parameter(torch.randn(1, 5).expand(4, 5), requires_grad=False)
    for dtype in (torch.float64, torch.bfloat16, torch.float16, torch.int8, torch.uint8, torch.int64, torch.bool):
        module.register_buffer(f"a {dtype}".replace(".", " "), torch.arange(9).reshape(3, 3).to(dtype))
    module.register_buffer("eight bits", torch.randn(4).to(torch.float8_e4m3fn))
    module.register_buffer("temporary", torch.randn(3), persistent=False)
    module.register_buffer("empty", torch.zeros(0, 3))
    module.register_buffer("nothing", None)
    module.register_buffer("nan", torch.tensor([torch.nan, -0.0, torch.inf]))
    codes = module.nan.view(torch.int32).clone()
    module.transposed.grad = torch.ones(5, 3)
    before = [one for one in kept(module) if one[0] is not module.nan]
    with offloaded(module, "disk"):
        assert live_bytes(module) == 0
    assert torch.equal(module.nan.view(torch.int32), codes)
    del module.nan
    assert same(before, module)
    assert torch.equal(module.transposed.grad, torch.ones(5, 3))
    assert "temporary" not in module.state_dict()


def test_tensors_without_plain_bytes_stay_where_they_are() -> None:
    module = nn.Module()
    module.register_buffer("sparse", torch.eye(3).to_sparse())
    module.register_buffer("around others", TwoTensor(torch.ones(3), torch.ones(3)))
    module.dense = nn.Parameter(torch.randn(3))
    with offloaded(module, "disk"):
        assert module.dense.device.type == "meta"
        assert torch.equal(module.sparse.to_dense(), torch.eye(3))
        assert torch.equal(module.get_buffer("around others").a, torch.ones(3))


def test_a_module_that_is_away_already_is_left_alone() -> None:
    from accelerate import cpu_offload

    hf = fresh("llama")
    ids = torch.tensor([[3, 4, 5]])
    with torch.no_grad():
        expected = hf(ids).logits
        cpu_offload(hf, execution_device=torch.device("cpu"))
        with offloaded(hf, "disk"):
            assert hf.lm_head.weight.device.type == "meta"
        assert torch.equal(hf(ids).logits, expected)


def test_what_such_a_module_shares_stays_too() -> None:
    away, here = nn.Linear(3, 3), nn.Linear(3, 3)
    away.weight, here.weight = nn.Parameter(torch.empty(3, 3, device="meta")), nn.Parameter(away.bias.detach()[None])
    with offloaded([away, here], "disk"):
        assert away.bias.device == here.weight.device == torch.device("cpu")
        assert here.bias.device.type == "meta"
    assert here.weight.data_ptr() == away.bias.data_ptr()


# ---------------------------------------------------------------- models
@pytest.mark.parametrize("name", ["gpt2", "llama", "llama tied", "gemma2", "mixtral", "gpt_oss", "falcon_h1"])
def test_a_model_gives_the_same_logits_afterwards(name: str) -> None:
    hf = fresh(name)
    model = Model(hf)
    before, expected = kept(hf), model.logits([5, 9, 12])
    tied = hf.get_output_embeddings().weight is hf.get_input_embeddings().weight
    with offloaded(model.layout, "disk"):
        assert live_bytes(hf) == 0
    assert same(before, hf)
    assert torch.equal(model.logits([5, 9, 12]), expected)
    assert tied == (hf.get_output_embeddings().weight is hf.get_input_embeddings().weight)


USES: dict[str, Callable[[Model], object]] = {
    "forward": lambda model: model.logits([3, 4, 5]),
    "one module": lambda model: model.layout.head(torch.randn(1, 32)),
    "a product": lambda model: torch.randn(1, 32) @ model.layout.head.weight.T,
    "rows": lambda model: model.unembedding(torch.tensor([3])),
    "saving": lambda model: model.hf.state_dict(),
    "moving": lambda model: model.hf.to(torch.float64),
    "a copy": lambda model: model.layout.head.weight.data,
    "assignment": lambda model: model.layout.head.weight.fill_(0),
}


@pytest.mark.parametrize("use", USES)
def test_a_model_on_disk_says_so_instead_of_giving_garbage(use: str) -> None:
    model = Model(fresh("llama tied"))
    expected = model.logits([3, 4, 5])
    with (
        pytest.raises(WhenceError, match=r"is on disk and cannot be used: run the model after the block"),
        torch.no_grad(),
        offloaded(model, "disk"),
    ):
        USES[use](model)
    assert torch.equal(model.logits([3, 4, 5]), expected)


def test_a_module_outside_that_shares_a_weight_on_disk_says_so() -> None:
    hf = fresh("llama tied")
    expected = Model(hf).logits([3, 4, 5])
    with pytest.raises(WhenceError, match="embed_tokens"), offloaded(hf.model, "disk"):
        hf.lm_head(torch.randn(1, 32))
    assert type(hf.lm_head.weight) is nn.Parameter
    assert torch.equal(Model(hf).logits([3, 4, 5]), expected)


def test_a_model_on_disk_can_still_be_described() -> None:
    model = Model(fresh("gpt2"))
    said, size = repr(model), model.hf.num_parameters()
    with offloaded(model, "disk"):
        assert repr(model) == said
        assert model.hf.num_parameters() == size
        assert "meta" in repr(model.layout.head.weight)


def test_a_forward_pass_in_another_thread_waits_until_the_model_is_back() -> None:
    model = Model(fresh("gpt2"))
    expected, found = model.logits([3, 4, 5]), list[Tensor]()
    with offloaded(model, "disk"):
        other = Thread(target=lambda: found.append(model.logits([3, 4, 5])))
        other.start()
        other.join(0.1)
        assert not found
    other.join()
    assert torch.equal(found[0], expected)


# ---------------------------------------------------------------- what goes wrong
def test_a_full_disk_is_an_error_that_says_what_to_do_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, written = net(), list[Path]()
    before, save = kept(whole), safetensors.torch.save_file

    def full(tensors: dict[str, Tensor], file: Path) -> None:
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(file)
        save(tensors, file)

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(WhenceError, match=r"Sequential\.1\.bias \(32 bytes\).*No space.*TMPDIR"):  # noqa: SIM117
        with offloaded(whole, "disk", folder=tmp_path):
            raise AssertionError("the block must not run")
    assert len(written) == 3
    assert same(before, whole)
    assert not list(tmp_path.iterdir())


def test_a_file_that_does_not_hold_what_was_written_is_noticed_while_the_weight_is_still_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, save = net(), safetensors.torch.save_file
    before = kept(whole)
    monkeypatch.setattr(
        safetensors.torch, "save_file", lambda tensors, file: save({"bytes": tensors["bytes"] + 1}, file)
    )
    with pytest.raises(WhenceError, match="not what was written"), offloaded(whole, "disk", folder=tmp_path):
        pass
    assert same(before, whole)


def test_a_folder_that_is_missing_is_an_error_that_names_it(tmp_path: Path) -> None:
    whole = net()
    before = kept(whole)
    with pytest.raises(WhenceError, match="missing"), offloaded(whole, "disk", folder=tmp_path / "missing"):
        pass
    assert same(before, whole)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-8])


def other_content(file: Path) -> None:
    safetensors.torch.save_file({"bytes": torch.zeros(1, dtype=torch.uint8)}, file)


@pytest.mark.parametrize("damage", [Path.unlink, truncate, other_content])
def test_a_file_that_cannot_be_read_costs_one_weight_and_says_which(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    whole = net()
    before = kept(whole)
    lost = r"Sequential\.0\.weight from .*0\.safetensors.*Load the model again"
    with pytest.raises(FileFormatError, match=lost), offloaded(whole, "disk", folder=tmp_path):
        damage(next(tmp_path.rglob("0.safetensors")))
    assert same(before[1:], nn.ParameterList([whole[0].bias]), whole[1:])
    with pytest.raises(WhenceError, match="on disk"):
        whole(torch.randn(3, 4))
    assert len(list(tmp_path.rglob("*.safetensors"))) >= len(before) - 1


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("to", ["gpu", "", True])
def test_another_place_is_a_value_error(to: Any) -> None:
    with pytest.raises(ValueError, match="'cpu', 'disk' or None"), offloaded(net(), to):
        pass


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("modules", [None, 3, "model", [nn.Linear(1, 1), None], {"a": nn.Linear(1, 1)}])
def test_what_is_no_module_is_a_type_error_that_says_what_to_pass(modules: Any) -> None:
    with pytest.raises(TypeError, match=r"cannot be offloaded; pass a torch module"), offloaded(modules, "disk"):
        pass
