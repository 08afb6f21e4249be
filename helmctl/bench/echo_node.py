"""`python -m helmctl.bench.echo_node --fleet FILE --name NAME`: a node without a model, for measuring what stands before nodes.

It speaks what a router needs (readiness, the residency stream, answers of a usual size) and computes
nothing, so that the cost of the path is all there is to see.
"""

import argparse
import asyncio
from pathlib import Path
from typing import cast

import httptools
import msgspec
import uvloop

from agents.runtime.residency_stream import LOAD_SECONDS, frame
from agents.wire.messages import FleetFile, NodeLoad, Phase, ResidencySnapshot

SCORES = 64  # in an answer: about half a kilobyte
_BODY = msgspec.json.encode({"model_name": "echo", "outputs": [{"name": "scores", "shape": [1, SCORES], "data": [0.5] * SCORES}]})
_TIMING = b"server-timing: queue;dur=0.000, emb;dur=0.000, kv;dur=0.000, compute;dur=0.010\r\n"
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n%scontent-length: %d\r\n\r\n%s" % (_TIMING, len(_BODY), _BODY)
_EMPTY = b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n"
_STREAM = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
_LOAD = NodeLoad(
    at_unix_ns=0,
    phase=Phase.READY,
    queued_ms=0.0,
    queue_depth=0,
    emb_hit_ratio=0.9,
    ms_fixed=0.05,
    ms_per_missing_row=0.0,
    ms_per_token=0.0,
    ms_per_token_squared=0.0,
    ms_per_candidate=0.0,
    refill_backlog_bytes=0,
    kv_tokens_capacity=1,
    kv_tokens_used=0,
    served_total=0,
)


class EchoConnection(asyncio.Protocol):
    """One connection: every request has its answer at once, the residency stream goes on."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the stream, if this was one."""
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Parse; the callbacks answer."""
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        """A new request."""
        self._target = b""

    def on_url(self, url: bytes) -> None:
        """The target, in pieces."""
        self._target += url

    def on_message_complete(self) -> None:
        """Answer."""
        if self._target.startswith(b"/v1/residency"):
            self._transport.write(_STREAM + _chunk(ResidencySnapshot(seq=0, user_keys=[], cached_tokens=[])))
            self._tell_load()
        else:
            self._transport.write(_EMPTY if self._target == b"/v1/reuse" else _ANSWER)

    def _tell_load(self) -> None:
        self._transport.write(_chunk(_LOAD))
        self._timer = asyncio.get_running_loop().call_later(LOAD_SECONDS, self._tell_load)


def _chunk(message: msgspec.Struct) -> bytes:
    data = frame(message)
    return b"%x\r\n%s\r\n" % (len(data), data)


async def serve(host: str, port: int) -> None:
    """Until the process is ended."""
    server = await asyncio.get_running_loop().create_server(EchoConnection, host, port, backlog=1_024)
    await server.serve_forever()


def main() -> None:
    """One node of the fleet file, by name."""
    parser = argparse.ArgumentParser(prog="echo_node")
    parser.add_argument("--fleet", type=Path, required=True)
    parser.add_argument("--name", required=True)
    options = parser.parse_args()
    fleet = msgspec.json.decode(options.fleet.read_bytes(), type=FleetFile)
    address = next(node for node in fleet.nodes if node.name == options.name)
    uvloop.run(serve(address.host, address.port))


if __name__ == "__main__":
    main()
