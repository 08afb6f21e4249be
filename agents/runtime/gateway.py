"""HTTP of a node: the inference protocol for clients, `/v1` for the fleet, `/metrics` for Prometheus.

Each handler parses, calls one verb of the engine, answers. Everything a stranger can send is
bounded here: header size, body size, the time a header or a body may take.
"""

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import structlog
from aiohttp import web
from multidict import CIMultiDict

from agents.runtime import oip
from agents.runtime.compression import ENCODINGS, accepted_encoding, compressed
from agents.runtime.control import decode_control
from agents.runtime.device.base import Execution
from agents.runtime.engine import DECISIONS_KEPT, Engine
from agents.runtime.keys import UserKeys
from agents.runtime.node_metrics import NodeMetrics
from agents.runtime.oip.envelope import BODY_BYTES_MAX, HEAD_HEADER
from agents.runtime.ranking import RankRequest, RankResult, kv_words, rank_request
from agents.runtime.residency_stream import SNAPSHOT_SEQ, SUBSCRIBERS_MAX, WRITE_BUFFER_BYTES, stream_residency
from agents.wire.errors import ErrorCode, WireError
from agents.wire.messages import ClusterReuse, ControlRequest, ModelChoice, NodeTelemetry, Phase

BODY_SECONDS_MAX = 10.0  # 16 MB in it is a slow disk's speed; a body that drips longer holds a connection for nothing
DEADLINE_MS_MAX = 60_000.0  # a request that may wait longer belongs into somebody else's queue
REUSE_GAP_MS_MAX = 10**12  # 30 years: beyond it the header is damage, and nanoseconds must fit 64 bits
DECISIONS_DEFAULT = 50
RETRY_STATUS = (429, 503)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = structlog.get_logger(__name__)
_MODEL_CHOICE = msgspec.json.Decoder(ModelChoice)
_REUSE = msgspec.msgpack.Decoder(ClusterReuse)


class Gateway:
    """Routes of one node. `command` applies a local command and remembers it for a restart; `choose` takes up other versions."""

    def __init__(
        self,
        engine: Engine,
        metrics: NodeMetrics,
        keys: UserKeys,
        fleet_key: str,
        instance: str,
        command: Callable[[ControlRequest], None],
        choose: Callable[[ModelChoice], Awaitable[None]],
        body_seconds_max: float = BODY_SECONDS_MAX,
    ) -> None:
        self._engine = engine
        self._metrics = metrics
        self._keys = keys
        self._authorization = f"Bearer {fleet_key}".encode()
        self._instance = instance
        self._command = command
        self._choose = choose
        self._body_seconds_max = body_seconds_max
        self._streams: set[asyncio.Task[None]] = set()
        self._statistics = oip.ModelStatistics()
        engine.on_batch.append(self._executed)

    def application(self) -> web.Application:
        """The application with all routes."""
        app = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[self._answer_errors, self._authenticate])
        app.on_shutdown.append(self._end_streams)
        app.add_routes(
            [
                web.get("/v2", self._server),
                web.get("/v2/", self._server),
                web.get("/v2/health/live", self._live),
                web.get("/v2/health/ready", self._ready),
                web.get("/v2/models/stats", self._model_statistics),
                web.get("/metrics", self._prometheus),
                web.get("/v1/status", self._status),
                web.put("/v1/control", self._control),
                web.put("/v1/model", self._choose_model),
                web.get("/v1/residency", self._residency),
                web.post("/v1/reuse", self._reuse),
                web.get("/v1/decisions", self._decisions),
            ]
        )
        for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            app.add_routes(
                [
                    web.get(model, self._model),
                    web.get(f"{model}/ready", self._model_ready),
                    web.get(f"{model}/stats", self._model_statistics),
                    web.post(f"{model}/infer", self._infer),
                ]
            )
        return app

    # --- around every request -------------------------------------------------------------

    @web.middleware
    async def _answer_errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every refusal is an error object, whoever raised it."""
        try:
            return await handler(request)
        except WireError as error:
            return self._refusal(request, error)
        except web.HTTPException as error:
            return self._http_refusal(error)
        except (ConnectionError, TimeoutError):
            raise
        except Exception:
            log.exception("handler_failed", path=request.path)
            return self._refusal(request, WireError(ErrorCode.INTERNAL, "the node failed to handle this request"))

    @web.middleware
    async def _authenticate(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """`/v1` is for holders of the fleet's key."""
        if request.path.startswith("/v1/"):
            given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
            if not hmac.compare_digest(given, self._authorization):
                raise WireError(ErrorCode.UNAUTHENTICATED, "the fleet's key is needed: Authorization: Bearer KEY")
        return await handler(request)

    def _refusal(self, request: web.Request, error: WireError) -> web.Response:
        headers = {"x-helm-error-code": error.code.value, "x-helm-node": self._engine.name}
        if error.status in RETRY_STATUS:
            headers["Retry-After"] = str(self._engine.retry_after_seconds)
        if error.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if request.path.startswith("/v1/"):
            body = msgspec.json.encode({"error": error.detail, "code": error.code.value, "field": error.field})
        else:
            body = oip.encode_error(error)
        response = web.Response(body=body, status=error.status, headers=headers, content_type="application/json")
        if error.code is ErrorCode.SLOW_CLIENT:
            response.force_close()
        return response

    def _http_refusal(self, error: web.HTTPException) -> web.Response:
        """A refusal of the HTTP library's: no such path, wrong method."""
        headers = CIMultiDict({"x-helm-node": self._engine.name})
        if "Allow" in error.headers:
            headers["Allow"] = error.headers["Allow"]
        body = msgspec.json.encode({"error": error.reason})
        return web.Response(body=body, status=error.status, headers=headers, content_type="application/json")

    async def _body(self, request: web.Request) -> bytes:
        """The whole body, within its size and time."""
        encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("identity", *ENCODINGS):
            raise oip.invalid(f"content encoding {encoding!r} is not taken, only {' and '.join(ENCODINGS)}", "Content-Encoding")
        if request.content_length is not None and request.content_length > BODY_BYTES_MAX:
            raise WireError(ErrorCode.TOO_LARGE, f"body is larger than {BODY_BYTES_MAX} bytes")
        try:
            async with asyncio.timeout(self._body_seconds_max):
                return await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            raise WireError(ErrorCode.TOO_LARGE, f"body is larger than {BODY_BYTES_MAX} bytes") from error
        except TimeoutError as error:
            raise WireError(ErrorCode.SLOW_CLIENT, f"the body did not arrive within {self._body_seconds_max:g} s") from error
        except web.RequestPayloadError as error:
            raise oip.invalid(f"the body could not be read: {error}") from error

    # --- inference protocol ---------------------------------------------------------------

    async def _server(self, request: web.Request) -> web.Response:
        return _json(oip.server_metadata())

    async def _live(self, request: web.Request) -> web.Response:
        return _json({"live": True})

    async def _ready(self, request: web.Request) -> web.Response:
        ready = self._engine.phase is Phase.READY
        return _json({"ready": ready}, 200 if ready else 503)

    async def _model(self, request: web.Request) -> web.Response:
        self._check_model(request)
        return _json(oip.model_metadata(self._engine.model_version, self._engine.feature_schema))

    async def _model_ready(self, request: web.Request) -> web.Response:
        self._check_model(request)
        ready = self._engine.phase is Phase.READY
        return _json({"name": oip.MODEL_NAME, "ready": ready}, 200 if ready else 503)

    async def _infer(self, request: web.Request) -> web.Response:
        self._check_model(request)
        json_bytes = oip.json_bytes_of(request.headers.get(HEAD_HEADER))
        inputs = oip.decode_infer(await self._body(request), self._engine.profile, json_bytes)
        result = await self._ranked(self._rank_request(request, inputs))
        answer = oip.encode_result(inputs, result.scores, result.model_version)
        return self._answer(request, answer, self._result_headers(request, result))

    async def _ranked(self, request: RankRequest) -> RankResult:
        """Have the engine serve a request; the statistics remember how it ended."""
        clock = self._engine.clock
        begun_ns = clock.now_ns()
        try:
            result = await self._engine.infer(request)
        except WireError:
            self._statistics.failed((clock.now_ns() - begun_ns) / 1e6)
            raise
        self._statistics.answered(clock.unix_ns(), result.queue_ms, result.emb_ms + result.kv_ms, result.compute_ms, result.service_ms)
        return result

    def _executed(self, execution: Execution) -> None:
        timings = execution.timings
        infer_ms = float(timings.compute_ms.sum())
        self._statistics.executed(len(execution.scores), timings.emb_ms + timings.kv_ms, infer_ms, timings.service_ms)

    def _answer(self, request: web.Request, answer: oip.Answer, headers: dict[str, str]) -> web.Response:
        """An answer in the encoding the client accepts; the head's length is that before compression."""
        body = answer.body
        if answer.json_bytes is not None:
            headers[HEAD_HEADER] = str(answer.json_bytes)
        if (encoding := accepted_encoding(request.headers.get("Accept-Encoding"))) is not None:
            headers["Content-Encoding"] = encoding
            body = compressed(body, encoding)
        content_type = "application/json" if answer.json_bytes is None else "application/octet-stream"
        return web.Response(body=body, headers=headers, content_type=content_type)

    async def _model_statistics(self, request: web.Request) -> web.Response:
        if "model" in request.match_info:
            self._check_model(request)
        return _json(self._statistics.body(self._engine.model_version))

    def _check_model(self, request: web.Request) -> None:
        oip.check_model(request.match_info["model"], request.match_info.get("version"), self._engine.model_version)

    def _rank_request(self, request: web.Request, inputs: oip.RankInputs) -> RankRequest:
        known = inputs.user_id is not None
        gap_ms = _header_number(request, "x-helm-reuse-gap-ms", 0, REUSE_GAP_MS_MAX) if known else None
        return rank_request(
            inputs,
            self._keys,
            self._engine.profile.block_tokens,
            reuse_gap_ns=-1 if gap_ms is None else int(gap_ms * 1e6),
            resident_elsewhere=known and request.headers.get("x-helm-resident-elsewhere") == "1",
            deadline_ms=_header_number(request, "x-helm-deadline-ms", 1, DEADLINE_MS_MAX),
        )

    def _result_headers(self, request: web.Request, result: RankResult) -> dict[str, str]:
        headers = {
            "Server-Timing": f"queue;dur={result.queue_ms:.3f}, emb;dur={result.emb_ms:.3f}, "
            f"kv;dur={result.kv_ms:.3f}, compute;dur={result.compute_ms:.3f}",
            "x-helm-node": self._engine.name,
            "x-helm-kv": kv_words(result),
        }
        if (request_id := request.headers.get("x-request-id")) is not None:
            headers["x-request-id"] = request_id
        return headers

    # --- the fleet ------------------------------------------------------------------------

    async def _prometheus(self, request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.content(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _status(self, request: web.Request) -> web.Response:
        return _json(self._engine.telemetry())

    async def _control(self, request: web.Request) -> web.Response:
        self._command(decode_control(await self._body(request)))
        return _json(in_force(self._engine.telemetry()))

    async def _choose_model(self, request: web.Request) -> web.Response:
        try:
            choice = _MODEL_CHOICE.decode(await self._body(request))
        except msgspec.DecodeError as error:
            raise oip.invalid(f"not a choice of a model version: {error}", "version") from error
        previous = self._engine.model_version
        await self._choose(choice)
        engine = self._engine
        return _json(
            {"name": engine.name, "model_version": engine.model_version, "previous": previous, "feature_schema": engine.feature_schema}
        )

    async def _reuse(self, request: web.Request) -> web.Response:
        try:
            message = _REUSE.decode(await self._body(request))
        except msgspec.DecodeError as error:
            raise oip.invalid(f"not a reuse message: {error}") from error
        self._engine.reuse(message)
        return web.Response(status=204)

    async def _decisions(self, request: web.Request) -> web.Response:
        return _json(self._engine.decisions(_query_integer(request, "limit", DECISIONS_DEFAULT, 1, DECISIONS_KEPT)))

    async def _residency(self, request: web.Request) -> web.StreamResponse:
        seq = _query_integer(request, "from", SNAPSHOT_SEQ, SNAPSHOT_SEQ, 2**62)
        if request.query.get("instance", self._instance) != self._instance:
            seq = SNAPSHOT_SEQ  # numbers of an earlier life of this node
        if len(self._streams) >= SUBSCRIBERS_MAX:
            raise WireError(ErrorCode.QUEUE_FULL, f"{SUBSCRIBERS_MAX} routers follow this node already")
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream", "x-helm-instance": self._instance})
        response.enable_chunked_encoding()
        await response.prepare(request)
        if request.transport is not None:
            request.transport.set_write_buffer_limits(WRITE_BUFFER_BYTES)
        stream = asyncio.create_task(stream_residency(self._engine, seq, response.write))
        self._streams.add(stream)
        stream.add_done_callback(self._stream_ended)
        try:
            await asyncio.wait([stream])
        finally:
            stream.cancel()
        if not stream.cancelled() and request.transport is not None:
            request.transport.abort()
        return response

    def _stream_ended(self, stream: "asyncio.Task[None]") -> None:
        self._streams.discard(stream)
        if not stream.cancelled():
            log.info("residency_reader_cut", reason=repr(stream.exception()))

    async def _end_streams(self, app: web.Application) -> None:
        """A node that stops ends its streams itself: readers notice at once, and nothing waits for them."""
        for stream in self._streams:
            stream.cancel()


def in_force(status: NodeTelemetry) -> dict[str, Any]:
    """Answer to a command: what holds now."""
    return {
        "name": status.name,
        "mode": status.mode,
        "emb_ratio": status.emb_ratio,
        "target_emb_ratio": status.target_emb_ratio,
        "override_remaining_ms": status.override_remaining_ms,
        "observed_generation": status.observed_generation,
    }


def _json(content: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(content), status=status, content_type="application/json")


def _header_number(request: web.Request, name: str, low: float, high: float) -> float | None:
    """A numeric header within its limits, `None` when absent."""
    text = request.headers.get(name)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise oip.invalid(f"header {name} must be a number from {low:g} to {high:g}", name)
    return value


def _query_integer(request: web.Request, name: str, default: int, low: int, high: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise oip.invalid(f"query parameter {name} must be an integer from {low} to {high}", name)
    return value
