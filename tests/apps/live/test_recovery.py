"""What is killed comes back, and nothing that was said is lost."""

import pytest

from agents.wire.messages import Ack
from tests.apps.frames import telemetry
from tests.apps.live.system import Agent, System, until

pytestmark = pytest.mark.live


def test_redis_dies_and_comes_back_and_so_does_the_stream(own_system: System) -> None:
    system = own_system
    system.start_redis()
    system.start_web()
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


def test_the_web_process_dies_and_history_has_only_that_gap(own_system: System) -> None:
    system = own_system
    system.start_redis()
    system.start_web()
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


def test_an_ended_override_goes_back_to_auto_in_the_desired_state_too(own_system: System) -> None:
    system = own_system
    system.start_redis()
    system.start_web()
    agent = Agent(system.port, system.enrol("brief"), "brief")
    system.override("brief", 0.7, ttl_seconds=5)
    assert agent.command().spec.generation == 2
    agent.send(Ack(command_id=f"{system.get('nodes/brief/')['metadata']['uid'].replace('-', '')}:2", observed_generation=2, accepted=True))

    back = agent.command()

    assert (back.spec.generation, back.spec.mode.value, back.spec.emb_ratio, back.spec.ttl_remaining_ms) == (3, "auto", None, None)
    assert system.get("nodes/brief/")["spec"]["mode"] == "auto"
    entry = system.get("audit/", target="brief", action="node.expire")["results"][0]
    assert (entry["actor"], entry["before"]["mode"], entry["after"]["mode"]) == ("system", "override", "auto")
    agent.close()
