import json
import pickle
import subprocess
import sys
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
import safetensors.numpy

from agents.artifacts.card import Action, Card, digest_of, encode_card
from agents.artifacts.policy_file import BYTES_MAX, ArtefactError, PolicyFile, Refusal, read_policy, write_policy

STEP = Action(kind="step", period_seconds=5.0, step_ratio_max=0.1)
CARD = Card(
    format_version=1,
    name="tiny",
    features=["emb_ratio", "kv_hit_ratio"],
    mean=[0.5, 0.5],
    scale=[0.2, 0.1],
    hidden=[3, 3],
    action=STEP,
    seed=7,
    git_revision="abc",
    training={"steps": 10},
    evaluation={"latency_ms_p99": 1.5},
)


def arrays() -> dict[str, np.ndarray]:
    chance = np.random.default_rng(0)
    shapes = {
        "layer0.weight": (3, 2),
        "layer0.bias": (3,),
        "layer1.weight": (3, 3),
        "layer1.bias": (3,),
        "layer2.weight": (1, 3),
        "layer2.bias": (1,),
    }
    return {name: chance.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def sealed(card: Card, weights: bytes) -> bytes:
    return encode_card(msgspec.structs.replace(card, digest=digest_of(card, weights)))


def refused(weights: bytes, card: bytes) -> Refusal:
    with pytest.raises(ArtefactError) as caught:
        read_policy(weights, card)
    assert str(caught.value).startswith(f"{caught.value.code}: ")
    return caught.value.code


def test_a_card_without_a_hold_is_written_and_sealed_as_before_there_was_one() -> None:
    assert b"hold_ratio" not in encode_card(CARD)
    assert b"follow_share" not in encode_card(CARD)
    held = msgspec.structs.replace(CARD, action=msgspec.structs.replace(STEP, hold_ratio=0.05, follow_share=0.5))
    assert digest_of(held, b"") != digest_of(CARD, b"")
    assert msgspec.json.decode(encode_card(held), type=Card) == held


def test_what_is_written_is_read_back_exactly() -> None:
    file = write_policy(arrays(), CARD)
    policy = read_policy(file.weights, file.card)
    assert policy.card == msgspec.structs.replace(CARD, digest=file.digest)
    for layer, (weight, bias) in enumerate(policy.layers):
        np.testing.assert_array_equal(weight, arrays()[f"layer{layer}.weight"])
        np.testing.assert_array_equal(bias, arrays()[f"layer{layer}.bias"])


def test_equal_policies_have_equal_bytes_and_digests() -> None:
    assert write_policy(arrays(), CARD) == write_policy(arrays(), CARD)
    changed = arrays()
    changed["layer2.bias"] += 1.0
    assert write_policy(changed, CARD).digest != write_policy(arrays(), CARD).digest
    assert write_policy(arrays(), msgspec.structs.replace(CARD, seed=8)).digest != write_policy(arrays(), CARD).digest


@pytest.mark.parametrize("kept", [0, 4, 8, 30, -1, -20])
def test_truncated_weights_are_refused(kept: int) -> None:
    file = write_policy(arrays(), CARD)
    assert refused(file.weights[:kept], file.card) is Refusal.TRUNCATED


def test_a_flipped_bit_is_refused() -> None:
    file = write_policy(arrays(), CARD)
    flipped = file.weights[:-1] + bytes([file.weights[-1] ^ 1])
    assert refused(flipped, file.card) is Refusal.DIGEST_MISMATCH


@pytest.mark.parametrize(
    "weights",
    [
        b"\xff" * 64,
        (8).to_bytes(8, "little") + b"{{{{{{{{",
        (2).to_bytes(8, "little") + b"{}",
        (4).to_bytes(8, "little") + b"[[1]",
    ],
)
def test_bytes_that_are_no_safetensors_are_refused(weights: bytes) -> None:
    assert refused(weights, sealed(CARD, weights)) is Refusal.NOT_SAFETENSORS


def test_a_refusal_comes_back_whole_from_another_process() -> None:
    refusal = pickle.loads(pickle.dumps(ArtefactError(Refusal.NOT_FINITE, "layer0.weight")))
    assert (refusal.code, refusal.detail, str(refusal)) == (Refusal.NOT_FINITE, "layer0.weight", f"{Refusal.NOT_FINITE}: layer0.weight")


def test_a_pickle_is_never_opened() -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return (print, ("opened",))

    weights = pickle.dumps(Bomb())
    assert refused(weights, sealed(CARD, weights)) in {Refusal.NOT_SAFETENSORS, Refusal.TRUNCATED}


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("layer0.weight", np.zeros((3, 3), np.float32)),
        ("layer2.bias", np.zeros(2, np.float32)),
        ("layer1.bias", np.zeros(3, np.float64)),
        ("layer3.bias", np.zeros(3, np.float32)),
    ],
)
def test_tensors_that_are_not_the_cards_are_refused(name: str, array: np.ndarray) -> None:
    weights = safetensors.numpy.save(arrays() | {name: array})
    assert refused(weights, sealed(CARD, weights)) is Refusal.WRONG_SHAPE


def test_a_missing_tensor_is_refused_by_name() -> None:
    weights = safetensors.numpy.save({name: array for name, array in arrays().items() if name != "layer1.bias"})
    with pytest.raises(ArtefactError, match=r"layer1\.bias"):
        read_policy(weights, sealed(CARD, weights))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(bad: float) -> None:
    poisoned = arrays()
    poisoned["layer1.weight"][2, 1] = bad
    weights = safetensors.numpy.save(poisoned)
    assert refused(weights, sealed(CARD, weights)) is Refusal.NOT_FINITE
    with pytest.raises(ArtefactError, match="artefact_not_finite"):
        write_policy(poisoned, CARD)


def test_a_later_format_is_refused_before_its_fields_are_read() -> None:
    file = write_policy(arrays(), CARD)
    later = json.dumps({"format_version": 2, "something": "else"}).encode()
    assert refused(file.weights, later) is Refusal.TOO_NEW


@pytest.mark.parametrize(
    "card", [b"", b"[]", b"{}", b'{"format_version": "1"}', b'{"format_version": true}', b'{"format_version": 0}', b"\xff"]
)
def test_what_is_no_card_is_refused(card: bytes) -> None:
    assert refused(write_policy(arrays(), CARD).weights, card) is Refusal.CARD_INVALID


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mean", [0.5]),
        ("scale", [0.0, 1.0]),
        ("features", ["emb_ratio", "emb_ratio"]),
        ("hidden", [0]),
        ("hidden", [4, 4, 4, 4]),
        ("name", ""),
        ("surprise", 1),
        ("action", {"kind": "step", "period_seconds": 5.0}),
        ("action", {"kind": "increments", "period_seconds": 5.0, "increments": [0.0]}),
        ("action", {"kind": "leap", "period_seconds": 5.0}),
        ("action", {"kind": "step", "period_seconds": 0.0, "step_ratio_max": 0.1}),
        ("action", {"kind": "step", "period_seconds": 5.0, "step_ratio_max": 0.1, "hold_ratio": 0.3}),
        ("action", {"kind": "step", "period_seconds": 5.0, "step_ratio_max": 0.1, "follow_share": 0.0}),
        ("action", {"kind": "increments", "period_seconds": 5.0, "increments": [0.0, 0.1], "follow_share": 0.5}),
    ],
)
def test_a_card_that_contradicts_itself_is_refused(field: str, value: object) -> None:
    file = write_policy(arrays(), CARD)
    card = json.loads(file.card) | {field: value}
    assert refused(file.weights, json.dumps(card).encode()) is Refusal.CARD_INVALID


def test_an_artefact_over_a_megabyte_is_refused_unread() -> None:
    assert refused(b"\0" * (BYTES_MAX + 1), b"{}") is Refusal.TOO_LARGE


def test_reading_needs_no_torch() -> None:
    file: PolicyFile = write_policy(arrays(), CARD)
    script = (
        "import sys; from agents.artifacts.policy_file import read_policy; "
        f"read_policy(bytes.fromhex('{file.weights.hex()}'), bytes.fromhex('{file.card.hex()}')); print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "False\n"
