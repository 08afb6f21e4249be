"""Before a node says ready: made-up requests through a throw-away brain and the real device.

Kernels are loaded, those of evictions and migrations too: the first one of them must not stop anybody. Torch has set
up the device thread and its buffers. The first real request is then as fast as the thousandth. Nothing remains: the
real brain believes its arena empty.
"""

import msgspec
import numpy as np
from numpy.typing import NDArray

from agents.node.batch import StageTimings
from agents.node.node import Node, NodeConfig, TickInputs
from agents.node.queue import RequestQueue
from agents.profiles import Profile
from agents.runtime import oip
from agents.runtime.device.base import DeviceExecutor
from agents.runtime.keys import UserKeys
from agents.runtime.ranking import RankRequest, batch_of, rank_request
from agents.wire.messages import ControlRequest, Mode, Phase

_SECOND = 1_000_000_000
_TICKS = 10  # in a second, as a node ticks
_END_NS = 4 * _SECOND


def rehearse(profile: Profile, device: DeviceExecutor) -> None:
    """Serve one user after the other between ticks, while the split moves there and back, and write a refill."""
    node = Node("rehearsal", _crowded(profile), NodeConfig(admission="none"))
    for step, emb_ratio in enumerate((0.5, 0.4, 0.6, 0.5)):
        now_ns = step * _SECOND
        inputs = _inputs(profile, user=step)
        request = rank_request(inputs, UserKeys(b"", ""), profile.block_tokens)
        _rehearse_queue(request)
        node.control(now_ns, ControlRequest(mode=Mode.PIN, emb_ratio=emb_ratio, reason="rehearsal"))
        node.predict_ms(now_ns, request.user_key, request.items.shape[0], request.candidates.shape[0])
        oip.encode_result(inputs, _serve(node, device, now_ns, request), "rehearsal")
        for tick in range(1, _TICKS):
            _tick(node, device, now_ns + tick * _SECOND // _TICKS)
    rows = np.arange(1, dtype=np.int64)
    device.write_rows(node.refill_commit(_END_NS, rows), device.stage_rows(rows))
    node.version_flip(_END_NS)
    node.load(_END_NS, 0, 0.0, Phase.READY, 0)
    node.residency_since(-1)


def _crowded(profile: Profile) -> Profile:
    """A part of the pool that two users fill and that moves by pages at once."""
    pages = min(profile.pages, 4 * -(-profile.model.tokens_max // profile.block_tokens))
    return msgspec.structs.replace(profile, pool_bytes=pages * profile.page_bytes, move_ratio_per_second=1.0)


def _serve(node: Node, device: DeviceExecutor, now_ns: int, request: RankRequest) -> NDArray[np.float32]:
    batch = batch_of([request])
    ticket, plan = node.admit(now_ns, batch)
    (scores,), timings = device.execute(plan, batch, request.actions, request.timestamps)
    node.complete(now_ns, ticket, StageTimings(np.zeros(1), timings.emb_ms, timings.kv_ms, timings.compute_ms, timings.service_ms))
    return scores


def _tick(node: Node, device: DeviceExecutor, now_ns: int) -> None:
    effects = node.tick(now_ns, TickInputs(0, 0.0, 0, 0))
    if effects.moves.source_slots.shape[0]:
        device.copy_rows(effects.moves)
    node.moves_done(now_ns, effects.serial)


def _inputs(profile: Profile, user: int) -> oip.RankInputs:
    """As they would come over the wire, so that reading it is rehearsed too."""
    tokens = np.arange(profile.model.tokens_max, dtype=np.int64)
    values = {
        "history_items": (tokens + user * tokens.shape[0]) % profile.rows,
        "history_actions": tokens % profile.model.actions,
        "history_ts": tokens,
        "candidates": np.arange(profile.candidates, dtype=np.int64) % profile.rows,
    }
    inputs = [{"name": name, "shape": [1, len(content)], "datatype": "INT64", "data": content.tolist()} for name, content in values.items()]
    body = msgspec.json.encode({"inputs": inputs, "parameters": {"user_id": user}})
    return oip.decode_infer(body, profile)


def _rehearse_queue(request: RankRequest) -> None:
    queue = RequestQueue(2)
    queue.offer(1, request.user_key, 0, 1, 1)
    _ = queue.queued_ns
    queue.expire(0)
    queue.close(0, 1, np.zeros(0, np.uint64), True)
    queue.drop(1)
