"""One node assembled from its parts, from the listening socket to the last frame."""

import asyncio
import random
import socket
from collections.abc import Callable
from pathlib import Path

import structlog

from agents.artifacts.policy_file import PolicyFile
from agents.node.node import Node, NodeConfig
from agents.node.record_sampling import RecordSampling
from agents.node.warm import warm_up_policy
from agents.runtime.adapter_store import AdapterStore
from agents.runtime.clock import Clock, SystemClock
from agents.runtime.config import NodeSettings, SettingsError
from agents.runtime.device.base import DeviceOutOfMemory
from agents.runtime.device.executor import Parts, TorchExecutor
from agents.runtime.device.make import make_executor, make_parts, refuse_what_cannot_run
from agents.runtime.engine import Engine, Event
from agents.runtime.gateway import BODY_SECONDS_MAX, Gateway
from agents.runtime.hold_store import SavedHold, read_hold, restored, saved, write_hold
from agents.runtime.journal_writer import Brain, JournalWriter, RecordingNode, header_of
from agents.runtime.keys import UserKeys
from agents.runtime.link import Link
from agents.runtime.listener import Listener
from agents.runtime.node_metrics import NodeMetrics
from agents.runtime.policy_fetch import fetch_from
from agents.runtime.policy_follower import PolicyFollower
from agents.runtime.policy_store import PolicyStore
from agents.runtime.rehearsal import rehearse
from agents.runtime.versions import DEMO_VERSION, Loaded, Tables, check_name, current_version, demo_version, load_version, serving, try_out
from agents.wire.errors import ErrorCode, WireError
from agents.wire.events import EventKind
from agents.wire.messages import WIRE_VERSION, ControlRequest, DecisionRecord, EventFrame, Hello, ModelChoice, NodeSpec
from agents.workloads import journal

log = structlog.get_logger(__name__)


def make_device(settings: NodeSettings) -> TorchExecutor:
    """Table, model, link and arena of the settings' profile; `SettingsError` when this machine cannot have them."""
    try:
        refuse_what_cannot_run(settings.device, settings.profile)
        loaded = loaded_version(settings, current_version(settings.model_folder))
        return make_executor(settings.device, settings.profile, loaded.weights, loaded.table)
    except (ValueError, OSError, DeviceOutOfMemory) as error:
        raise SettingsError(str(error)) from error


def loaded_version(settings: NodeSettings, version: str) -> Loaded:
    """An imported version, or the demo's own; `ValueError` when it is not here or does not fit the profile."""
    if version == DEMO_VERSION:
        return demo_version(settings.table_folder, settings.profile)
    return load_version(settings.model_folder, version, settings.profile)


class NodeDaemon:
    """A running node. Make it on the loop that will own it."""

    def __init__(
        self,
        settings: NodeSettings,
        device: TorchExecutor,
        clock: Clock | None = None,
        body_seconds_max: float = BODY_SECONDS_MAX,
    ) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._started_unix_ns = self._clock.unix_ns()
        config = NodeConfig(
            controller=settings.controller, admission=settings.admission, seed=settings.seed, emb_ratio_start=settings.emb_ratio_start
        )
        try:
            self._node = Node(settings.name, settings.profile, config)
        except ValueError as error:
            raise SettingsError(str(error)) from error
        self._device = device
        self._writer = self._open_journal(config)
        brain: Brain = self._node if self._writer is None else RecordingNode(self._node, self._writer)
        self._brain = brain
        self.engine = Engine(brain, device, settings.profile, self._clock, config.tick_ns, serving(settings.model_folder))
        self.engine.on_event.append(self._remember_event)
        self._adapter = AdapterStore(settings.adapter_file, self._node.adapter_state, self._node.restore_adapter)
        if self._writer is None:
            self.engine.on_decision.append(self._adapter.noted)
        self._policy = self._make_follower()
        instance = str(self._started_unix_ns)
        gateway = Gateway(
            self.engine,
            NodeMetrics(self.engine, self._node.ledger),
            UserKeys(settings.salt, instance),
            settings.fleet_key,
            instance,
            self.control,
            self.choose,
            body_seconds_max,
        )
        self._listener = Listener(gateway.application())
        self.link = self._make_link()
        self._link_task: asyncio.Task[None] | None = None
        self.port = settings.port

    async def start(self, bound: socket.socket) -> None:
        """Warm up, take back the saved state, listen on a bound socket, tick, dial out."""
        await self.engine.on_device(lambda: rehearse(self._settings.profile, self._device))
        hold = self._restore()
        if self._writer is None:  # a journal must replay from a node that has learned nothing
            self._adapter.load()
        self._policy.restore()
        if self._writer is None and hold is not None and hold.demoted_policy == self._node.policy_digest:
            self._node.demote()
        self.engine.start()
        self.port = bound.getsockname()[1]
        await self._listener.open(bound)
        if self.link is not None:
            self._link_task = asyncio.create_task(self.link.run())
            self._announce(EventKind.NODE_ONLINE, {})
        log.info("node_ready", name=self._settings.name, port=self.port, profile=self._settings.profile.name)

    async def stop(self) -> None:
        """Drain, then end everything in the order of who still needs whom."""
        self._announce(EventKind.NODE_DRAINING, {})
        drained = await self.engine.drain(self._settings.drain_seconds_max)
        log.info("node_drained", complete=drained)
        await self._listener.close()
        if self._link_task is not None:
            self._link_task.cancel()
            await asyncio.gather(self._link_task, return_exceptions=True)
        await self._policy.close()
        await self.engine.close()
        if self._writer is None:
            self._adapter.save()
        else:
            await asyncio.to_thread(self._writer.close)

    # --- commands -------------------------------------------------------------------------

    def control(self, request: ControlRequest) -> None:
        """A local command; `WireError` if refused. It survives a restart for as long as it lasts."""
        self.engine.control(request)
        self._save_hold()

    def obey(self, spec: NodeSpec) -> None:
        """A command of the control plane; `WireError` if refused."""
        again = spec.policy_generation > self._brain.desired.policy_generation
        self.engine.apply(spec)
        self._policy.want(spec.policy_digest, again=again)
        self._save_hold()  # last: a node that knows the generation is not told the rest of it again

    async def choose(self, choice: ModelChoice) -> None:
        """Serve what was chosen; `WireError` if refused, and nothing changes."""
        if choice.version is None and choice.feature_schema is None:
            raise WireError(ErrorCode.INVALID_REQUEST, "choose a version, a feature_schema, or both", "version")
        if choice.feature_schema is not None:
            try:
                check_name("feature schema", choice.feature_schema)
            except ValueError as error:
                raise WireError(ErrorCode.INVALID_REQUEST, str(error), "feature_schema") from error
        if choice.version is not None:
            await self._take_up(choice.version)
        if choice.feature_schema not in (None, self.engine.feature_schema):
            self.engine.take_up_features(choice.feature_schema)
            log.info("feature_schema_taken_up", schema=choice.feature_schema)

    async def _take_up(self, version: str) -> None:
        """Load another version of the model beside the one that serves, then flip."""
        if version == self.engine.model_version:
            return
        try:
            parts, tables = await asyncio.to_thread(self._prepare, version)
        except (ValueError, OSError) as error:
            raise WireError(ErrorCode.INVALID_REQUEST, str(error), "version") from error
        flip = asyncio.ensure_future(self.engine.take_up(version, tables, lambda: self._device.install(parts)))
        await asyncio.shield(flip)  # whoever asked may hang up; a flip is not left half done
        log.info("model_taken_up", version=version)

    def _prepare(self, version: str) -> tuple[Parts, Tables]:
        """Everything of a version that takes time, on a thread of its own."""
        loaded = loaded_version(self._settings, version)
        parts = make_parts(self._device, self._settings.profile, loaded.weights, loaded.table)
        try_out(parts.model)
        return parts, loaded.tables

    def _make_follower(self) -> PolicyFollower:
        settings = self._settings
        return PolicyFollower(
            store=PolicyStore(settings.policy_folder, settings.policy_file),
            fetch=fetch_from(settings.control_url, settings.credential_file),
            switch=self._switch_policy,
            warm=warm_up_policy,
            tell=lambda facts: setattr(self.engine, "policy_facts", facts),
            announce=self._announce,
            chance=random.Random(self._started_unix_ns),  # noqa: S311 - jitter, not a secret
        )

    def _switch_policy(self, file: PolicyFile | None) -> None:
        if file is None:
            self._brain.use_own_controller()
        else:
            self._brain.use_policy(file.weights, file.card)
        if self._writer is None:
            self._adapter.offer()
        self._save_hold()

    def _save_hold(self) -> None:
        node = self._node
        hold = saved(node.desired, self._clock.now_ns(), self._clock.unix_ns(), node.controller_mode, node.demoted_policy)
        try:
            write_hold(self._settings.hold_file, hold)
        except OSError as error:  # a full disk must not undo a command that is in force
            log.error("hold_not_saved", error=str(error))

    def _restore(self) -> SavedHold | None:
        """Bring back what was in force before a restart, without what has run out meanwhile."""
        try:
            hold = read_hold(self._settings.hold_file)
            if hold is not None:
                self.engine.apply(NodeSpec(controller=hold.controller_in_force))
                self.engine.apply(restored(hold, self._clock.unix_ns()))
                log.info("hold_restored", mode=self._brain.desired.mode.value, generation=hold.generation)
        except (ValueError, WireError, OSError) as error:
            log.error("hold_not_restored", error=str(error))
            return None
        return hold

    def _remember_event(self, event: Event) -> None:
        kind, detail = event
        if kind in (EventKind.OVERRIDE_EXPIRED, EventKind.POLICY_DEMOTED):
            self._save_hold()
        self._announce(kind, detail)

    # --- link -----------------------------------------------------------------------------

    def _make_link(self) -> Link | None:
        settings = self._settings
        if settings.control_url is None or settings.credential_file is None:
            return None
        link = Link(
            control_url=settings.control_url,
            credential_file=settings.credential_file,
            enrol_token_file=settings.enrol_token_file,
            hello=self._hello,
            telemetry=lambda: self.engine.telemetry(count=True),
            obey=self.obey,
            generation=lambda: self._brain.desired.generation,
            chance=random.Random(self._started_unix_ns),  # noqa: S311 - jitter, not a secret
        )
        self.engine.on_decision.append(self._send_decision(link))
        return link

    @staticmethod
    def _send_decision(link: Link) -> Callable[[DecisionRecord], None]:
        """Decisions go to the control plane sampled; all of them can be read from the node itself."""
        sampling = RecordSampling()

        def send(record: DecisionRecord) -> None:
            if sampling.wanted(record):
                link.outbox.decision(record)

        return send

    def _hello(self) -> Hello:
        settings = self._settings
        return Hello(
            name=settings.name,
            wire_version=WIRE_VERSION,
            observed_generation=self._brain.desired.generation,
            profile=settings.profile.kind,
            device=self._device.name,
            emulated=self._device.emulated,
            infer_url=settings.infer_url,
            started_unix_ns=self._started_unix_ns,
        )

    def _announce(self, kind: EventKind, detail: dict[str, str]) -> None:
        if self.link is not None:
            self.link.outbox.event(EventFrame(kind=kind.value, at_unix_ns=self._clock.unix_ns(), detail=detail))

    def _open_journal(self, config: NodeConfig) -> JournalWriter | None:
        folder = self._settings.journal_folder
        if folder is None:
            return None
        path: Path = folder / self._settings.name / f"{self._started_unix_ns}{journal.SUFFIX}"
        header = header_of(
            self._settings.name,
            self._settings.profile_reference or self._settings.profile.name,
            config,
            self._settings.salt,
            self._started_unix_ns,
        )
        return JournalWriter(path, header)
