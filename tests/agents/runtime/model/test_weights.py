from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from agents.profiles import ModelShape, load_profile
from agents.runtime.model.weights import Weights, init_weights, load_weights, save_weights, weight_shapes

SHAPE = ModelShape(layers=2, dim=8, heads=2, qk_dim=3, v_dim=4, tokens_max=10, actions=5, time_buckets=6)


def _tensors(seed: int) -> dict[str, torch.Tensor]:
    return dict(init_weights(SHAPE, seed)._asdict())


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    first, again, other = _tensors(3), _tensors(3), _tensors(4)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_weights_have_the_shapes_of_the_profile() -> None:
    shape = load_profile("cpu-demo").model
    tensors = init_weights(shape, 0)._asdict()
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == weight_shapes(shape)
    assert tensors["uvqk"].shape == (2, 64, 128)
    assert tensors["position_bias"].shape == (2, 1537)


def test_every_weight_has_a_shape_and_every_shape_a_weight() -> None:
    assert tuple(weight_shapes(SHAPE)) == Weights._fields


def test_saved_weights_come_back_bit_for_bit_and_leave_no_partial_file(tmp_path: Path) -> None:
    weights = init_weights(SHAPE, 1)
    save_weights(tmp_path / "ranker.safetensors", weights)
    loaded = load_weights(tmp_path / "ranker.safetensors", SHAPE)
    assert all(torch.equal(a, b) for a, b in zip(weights, loaded, strict=True))
    assert [entry.name for entry in tmp_path.iterdir()] == ["ranker.safetensors"]


def test_a_missing_and_an_unknown_tensor_are_named(tmp_path: Path) -> None:
    tensors = _tensors(1)
    tensors["heads"] = tensors.pop("head")
    save_file(tensors, tmp_path / "w")
    with pytest.raises(ValueError, match="missing or unknown tensors: head, heads"):
        load_weights(tmp_path / "w", SHAPE)


def test_a_tensor_of_another_shape_is_named(tmp_path: Path) -> None:
    tensors = _tensors(1) | {"time_bias": torch.zeros(2, 7)}
    save_file(tensors, tmp_path / "w")
    with pytest.raises(ValueError, match=r"time_bias has shape \(2, 7\), expected \(2, 6\)"):
        load_weights(tmp_path / "w", SHAPE)


def test_a_tensor_of_another_type_is_named(tmp_path: Path) -> None:
    tensors = _tensors(1)
    save_file(tensors | {"output": tensors["output"].to(torch.bfloat16)}, tmp_path / "w")
    with pytest.raises(ValueError, match=r"output is torch.bfloat16, expected torch.float32"):
        load_weights(tmp_path / "w", SHAPE)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    tensors = _tensors(1)
    tensors["uvqk"][0, 0, 0] = float("nan")
    save_file(tensors, tmp_path / "w")
    with pytest.raises(ValueError, match="uvqk holds values that are not finite"):
        load_weights(tmp_path / "w", SHAPE)


def test_a_file_of_something_else_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"not a tensor in sight")
    with pytest.raises(ValueError, match="w: not a safetensors file"):
        load_weights(tmp_path / "w", SHAPE)
