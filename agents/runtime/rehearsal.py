"""Before a node says ready: one made-up batch through a throw-away brain and the real device.

Kernels are loaded, torch has set up the device thread and its buffers. The first real request is
then as fast as the thousandth. Nothing remains: the real brain believes its arena empty.
"""

import msgspec
import numpy as np

from agents.node.batch import StageTimings
from agents.node.node import Node, NodeConfig, TickInputs
from agents.node.queue import RequestQueue
from agents.profiles import Profile
from agents.runtime import oip
from agents.runtime.device.base import DeviceExecutor
from agents.runtime.keys import UserKeys
from agents.runtime.ranking import RankRequest, batch_of, rank_request

_SECOND = 1_000_000_000


def rehearse(profile: Profile, device: DeviceExecutor) -> None:
    """Serve one made-up request twice and tick around it."""
    node = Node("rehearsal", profile, NodeConfig(admission="none"))
    request = _request(profile)
    _rehearse_queue(request)
    for step in range(2):
        now_ns = step * _SECOND
        batch = batch_of([request])
        node.predict_ms(now_ns, request.user_key, request.items.shape[0], request.candidates.shape[0])
        ticket, plan = node.admit(now_ns, batch)
        timings = device.execute(plan, batch, request.actions, request.timestamps).timings
        node.complete(now_ns, ticket, StageTimings(np.zeros(1), timings.emb_ms, timings.kv_ms, timings.compute_ms, timings.service_ms))
        effects = node.tick(now_ns, TickInputs(0, 0.0, 0, 0))
        node.moves_done(now_ns, effects.serial)
    rows = np.arange(1, dtype=np.int64)
    device.write_rows(node.refill_commit(2 * _SECOND, rows), device.stage_rows(rows))
    node.residency_since(-1)
    node.version_flip(2 * _SECOND)


def _request(profile: Profile) -> RankRequest:
    """As it would come over the wire, so that reading it is rehearsed too."""
    tokens = np.arange(profile.model.tokens_max, dtype=np.int64)
    values = {
        "history_items": tokens % profile.rows,
        "history_actions": tokens % profile.model.actions,
        "history_ts": tokens,
        "candidates": np.arange(profile.candidates, dtype=np.int64) % profile.rows,
    }
    inputs = [{"name": name, "shape": [1, len(content)], "datatype": "INT64", "data": content.tolist()} for name, content in values.items()]
    body = msgspec.json.encode({"inputs": inputs, "parameters": {"user_id": "rehearsal"}})
    return rank_request(oip.decode_infer(body, profile), UserKeys(b"", ""), profile.block_tokens)


def _rehearse_queue(request: RankRequest) -> None:
    queue = RequestQueue(2)
    queue.offer(1, request.user_key, 0, 1, 1)
    queue.expire(0)
    queue.close(0, 1, np.zeros(0, np.uint64), True)
    queue.drop(1)
