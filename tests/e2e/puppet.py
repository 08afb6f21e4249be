"""A puppet node: it dials the real link with real frames, obeys and acknowledges, but serves nobody."""

import contextlib
import threading
import time

import httpx
import msgspec
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from agents.wire.messages import (
    Ack,
    Condition,
    ConditionStatus,
    DecisionRecord,
    Hello,
    LatencySketch,
    Mode,
    NodeSpec,
    NodeTelemetry,
    Phase,
    PoolBytes,
    SpecCommand,
    StageMillis,
    TableLookups,
)

PERIOD_SECONDS = 0.25  # four times as often as a node, so that the tests wait less
RETRY_SECONDS = 0.25
MIB = 1 << 20
POOL_BYTES = 64 * MIB
_commands = msgspec.msgpack.Decoder(SpecCommand)
_encoder = msgspec.msgpack.Encoder()


class Puppet:
    """One node on strings: tests set its figures, it reports them until it is stopped."""

    def __init__(self, url: str, admin: httpx.Client, name: str, *, latency_ms_p99: float = 42.0, emb_ratio: float = 0.40) -> None:
        self.name = name
        self.latency_ms_p99 = latency_ms_p99
        self.emb_ratio = emb_ratio
        self.spec = NodeSpec(generation=1)
        self.obeys = True
        self._link = f"{url.replace('http', 'ws', 1)}/agents/v1/link"
        self._credential = _enrol(url, admin, name)
        self._seq = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._live, name=f"puppet-{name}", daemon=True)

    def start(self) -> None:
        """Dial in, and dial in again whenever the link is lost."""
        self._thread.start()

    def stop(self) -> None:
        """Fall silent."""
        self._stopping.set()
        self._thread.join(timeout=10)

    def _live(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(OSError, ConnectionClosed, TimeoutError), self._dial() as link:
                self._serve(link)
            self._stopping.wait(RETRY_SECONDS)

    def _dial(self) -> ClientConnection:
        return connect(self._link, additional_headers={"Authorization": f"Bearer {self._credential}"}, open_timeout=5)

    def _serve(self, link: ClientConnection) -> None:
        link.send(_encoder.encode(self._hello()))
        while not self._stopping.is_set():
            link.send(_encoder.encode(self._telemetry()))
            deadline = time.monotonic() + PERIOD_SECONDS
            while (left := deadline - time.monotonic()) > 0:
                try:
                    message = link.recv(timeout=left)
                except TimeoutError:
                    break
                self._obey(link, _commands.decode(message))

    def _obey(self, link: ClientConnection, command: SpecCommand) -> None:
        if not self.obeys:
            return
        before, self.spec = self.emb_ratio, command.spec
        if command.spec.emb_ratio is not None:
            self.emb_ratio = command.spec.emb_ratio
        link.send(_encoder.encode(Ack(command_id=command.command_id, observed_generation=command.spec.generation, accepted=True)))
        link.send(_encoder.encode(self._decision(before)))

    def _hello(self) -> Hello:
        return Hello(
            name=self.name,
            wire_version=1,
            observed_generation=self.spec.generation,
            profile="cpu-demo",
            device="cpu",
            emulated=True,
            infer_url="http://127.0.0.1:8790",
            started_unix_ns=time.time_ns(),
        )

    def _telemetry(self) -> NodeTelemetry:
        self._seq += 1
        pool_bytes = self.spec.pool_bytes or POOL_BYTES
        emb_bytes = int(pool_bytes * self.emb_ratio)
        kv_bytes = pool_bytes - emb_bytes
        return NodeTelemetry(
            name=self.name,
            at_unix_ns=time.time_ns(),
            seq=self._seq,
            phase=Phase.READY,
            mode=self.spec.mode,
            observed_generation=self.spec.generation,
            emb_ratio=self.emb_ratio,
            target_emb_ratio=self.emb_ratio,
            recommended_emb_ratio=0.45,
            emb_hit_ratio=0.82,
            kv_hit_ratio=0.64,
            latency_ms_p50=17.0,
            latency_ms_p99=self.latency_ms_p99,
            latency_count=600,
            slo_ms=60.0,
            slo_ratio=0.997,
            requests_per_second=12.5,
            requests_total=self._seq * 12,
            failures_total=0,
            queue_depth=2,
            utilisation=0.6,
            emb=PoolBytes(requested_bytes=emb_bytes, granted_bytes=emb_bytes, used_bytes=int(emb_bytes * 0.97)),
            kv=PoolBytes(requested_bytes=kv_bytes, granted_bytes=kv_bytes, used_bytes=int(kv_bytes * 0.9)),
            pool_bytes=pool_bytes,
            migrating_bytes=0,
            refill_backlog_bytes=0,
            refill_bytes_total=0,
            refill_throttled_seconds_total=0.0,
            emb_evictions_total=0,
            kv_evictions_total=0,
            moved_pages_total=0,
            moves_total=0,
            stages=StageMillis(queue_ms=3.1, emb_ms=2.4, kv_ms=7.9, compute_ms=5.2),
            miss_reasons={"cold": 31, "evicted_by_pressure": 7},
            sketch=LatencySketch(indexes=[240, 300], counts=[590, 10]),
            conditions=[
                Condition(
                    type="WithinSLO",
                    status=ConditionStatus.TRUE if self.latency_ms_p99 <= 60 else ConditionStatus.FALSE,
                    reason="Measured",
                    message=f"P99 {self.latency_ms_p99:.1f} ms, SLO 60 ms",
                    last_transition_unix_ns=time.time_ns(),
                )
            ],
            controller="b5",
            profile="cpu-demo",
            device="cpu",
            emulated=True,
            model_version="1",
            override_remaining_ms=self.spec.ttl_remaining_ms if self.spec.mode is Mode.OVERRIDE else None,
            tables=[
                TableLookups(name="items", lookups_total=80_000, hits_total=70_000),
                TableLookups(name="creators", lookups_total=20_000, hits_total=19_000),
            ],
            landscape=[_predicted(step / 20) for step in range(2, 19)],
        )

    def _decision(self, before: float) -> DecisionRecord:
        return DecisionRecord(
            name=self.name,
            at_unix_ns=time.time_ns(),
            seq=self._seq,
            controller="b5",
            mode=self.spec.mode,
            emb_ratio_before=before,
            emb_ratio_proposed=0.45,
            emb_ratio_granted=self.emb_ratio,
            reason="operator" if self.spec.mode is not Mode.AUTO else "gradient",
            guard_reasons=["operator"] if self.spec.mode is not Mode.AUTO else [],
            shadow_emb_ratio=None,
            features={"utilisation": 0.6},
            layers={"base": 0.45},
            decision_us=7.0,
        )


def _predicted(emb_ratio: float) -> list[float]:
    """A valley at 45 %: going far to either side is predicted to be slower."""
    distance = (emb_ratio - 0.45) ** 2
    mean_ms = 12 + 90 * distance
    return [emb_ratio, mean_ms, 40 + 200 * distance, mean_ms * 0.9, mean_ms * 1.1]


def _enrol(url: str, admin: httpx.Client, name: str) -> str:
    made = admin.post(f"{url}/api/v1/enrolments/", json={"node_name": name})
    made.raise_for_status()
    body = {"token": made.json()["token"], "name": name, "profile": "cpu-demo", "infer_url": "http://127.0.0.1:8790"}
    spent = httpx.post(f"{url}/api/v1/enrol/", json=body)
    spent.raise_for_status()
    return str(spent.json()["credential"])
