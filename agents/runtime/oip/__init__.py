"""Open Inference Protocol v2 with its binary tensor extension: bytes to checked arrays, results to bytes. No sockets.

Every refusal is a `WireError` whose sentence names the tensor and, where one entry is to blame, its index.
"""

from agents.runtime.oip.answer import Answer, encode_error, encode_result
from agents.runtime.oip.envelope import Peek, invalid, json_bytes_of, peek
from agents.runtime.oip.metadata import INPUTS, MODEL_NAME, SERVER_VERSION, check_model, model_metadata, server_metadata
from agents.runtime.oip.request import RankInputs, decode_infer
from agents.runtime.oip.statistics import ModelStatistics

__all__ = [
    "INPUTS",
    "MODEL_NAME",
    "SERVER_VERSION",
    "Answer",
    "ModelStatistics",
    "Peek",
    "RankInputs",
    "check_model",
    "decode_infer",
    "encode_error",
    "encode_result",
    "invalid",
    "json_bytes_of",
    "model_metadata",
    "peek",
    "server_metadata",
]
