"""What is killed comes back, and nothing that was said is lost."""

import signal

import pytest
from websockets.exceptions import ConnectionClosed

from agents.wire.messages import Ack
from tests.apps.frames import telemetry
from tests.apps.live.system import Agent, System
from tests.patience import until

pytestmark = pytest.mark.live


def test_redis_dies_and_comes_back_and_so_does_the_stream(own_system: System) -> None:
    system = own_system
    credential = system.enrol("steady")
    agent = Agent(system.port, credential, "steady")
    agent.send(telemetry("steady"))
    console = system.console()
    console.next_of("fleet.tick")

    system.kill("redis")
    # Without Redis: REST answers, frames are stored, commands are delivered, events wait in the outbox.
    system.override("steady", 0.66)
    command = agent.command()
    assert command.spec.emb_ratio == 0.66
    agent.send(Ack(command_id=command.command_id, observed_generation=2, accepted=True))
    agent.send(telemetry("steady", emb_ratio=0.51, observed_generation=2))
    until("the frame", lambda: system.get("nodes/steady/")["status"]["emb_ratio"] == 0.51)
    system.start_redis()

    # A console that stayed connected hears of it without doing anything.
    console.next_of("event", where=lambda message: message["data"]["kind"] == "override_requested")
    console.next_of("fleet.tick")
    console.close()
    agent.close()


def test_a_redis_that_hangs_does_not_take_the_nodes_with_it(own_system: System) -> None:
    system = own_system
    agent = Agent(system.port, system.enrol("calm"), "calm")
    agent.send(telemetry("calm"))
    until("the node", lambda: system.get("nodes/calm/")["status"]["phase"] == "ready")
    console = system.console("?topics=events")

    system.signal("redis", signal.SIGSTOP)
    system.override("calm", 0.66)
    assert agent.command().spec.emb_ratio == 0.66
    for step in range(6):
        agent.send(telemetry("calm", emb_ratio=0.50 + step / 100))
        until("the frame", lambda wanted=0.50 + step / 100: system.get("nodes/calm/")["status"]["emb_ratio"] == wanted, seconds=10)
    system.signal("redis", signal.SIGCONT)

    try:
        console.next_of("event", where=lambda message: message["data"]["kind"] == "override_requested")
    except ConnectionClosed:  # its connection to Redis was given up: it comes back and is told
        back = system.console("?topics=events")
        kinds = [event["kind"] for event in back.next()["data"]["events"]]
        if "override_requested" not in kinds:
            back.next_of("event", where=lambda message: message["data"]["kind"] == "override_requested")
    agent.close()


def test_the_web_process_dies_and_history_has_only_that_gap(own_system: System) -> None:
    system = own_system
    credential = system.enrol("survivor")
    agent = Agent(system.port, credential, "survivor")
    agent.send(telemetry("survivor", emb_ratio=0.41))
    until("a point", lambda: 0.41 in system.get("nodes/survivor/series/")["emb_ratio"])

    system.kill("web")
    system.start_web()

    assert 0.41 in system.get("nodes/survivor/series/")["emb_ratio"]
    agent = Agent(system.port, credential, "survivor")
    agent.send(telemetry("survivor", emb_ratio=0.42))
    until("a new point", lambda: 0.42 in system.get("nodes/survivor/series/")["emb_ratio"])
    # It was our own doing: the feed does not call the node lost.
    assert [item["kind"] for item in system.get("events/", target="survivor")["results"]] == ["node_online", "node_enrolled"]
    agent.close()
