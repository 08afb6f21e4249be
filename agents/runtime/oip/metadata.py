"""What this server and its model say of themselves, and which names they answer to."""

from typing import Any

from agents.wire.errors import ErrorCode, WireError

SERVER_NAME = "helm"
SERVER_VERSION = "0.1.0"
MODEL_NAME = "helm-ranker"
EXTENSIONS = ["binary_tensor_data", "parameters", "statistics", "helm_residency"]
HISTORY_INPUTS = ("history_items", "history_actions", "history_ts")
CANDIDATES = "candidates"
INPUTS = (*HISTORY_INPUTS, CANDIDATES)
OUTPUT = "scores"


def server_metadata() -> dict[str, Any]:
    """Body of `GET /v2`."""
    return {"name": SERVER_NAME, "version": SERVER_VERSION, "extensions": EXTENSIONS}


def model_metadata(model_version: str, feature_schema: str) -> dict[str, Any]:
    """Body of `GET /v2/models/{name}`; -1 is a length the request chooses."""
    return {
        "name": MODEL_NAME,
        "versions": [model_version],
        "platform": "helm_hstu",
        "parameters": {"feature_schema": feature_schema},
        "inputs": [{"name": name, "datatype": "INT64", "shape": [1, -1]} for name in INPUTS],
        "outputs": [{"name": OUTPUT, "datatype": "FP32", "shape": [1, -1]}],
    }


def check_model(name: str, version: str | None, model_version: str) -> None:
    """Refuse a model or version this node does not serve. Names are case-sensitive."""
    if name != MODEL_NAME:
        raise WireError(ErrorCode.UNKNOWN_MODEL, f"unknown model {name!r}; this server has {MODEL_NAME!r}")
    if version is not None and version != model_version:
        raise WireError(ErrorCode.UNKNOWN_MODEL, f"model {name!r} has no version {version!r}, only {model_version!r}")
