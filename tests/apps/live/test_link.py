"""The agents' link against a running control plane."""

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from agents.wire.messages import Ack, Mode
from tests.apps.frames import decision, event, hello, telemetry
from tests.apps.live.system import Agent, System
from tests.patience import until

pytestmark = pytest.mark.live


def online(system: System, name: str, **greeting: object) -> Agent:
    agent = Agent(system.port, system.enrol(name), name, **greeting)
    agent.send(telemetry(name))
    until(f"{name} to be ready", lambda: system.get(f"nodes/{name}/")["status"]["phase"] == "ready")
    return agent


def test_only_a_nodes_credential_opens_a_link(system: System) -> None:
    for secret in ("helm_node_wrong", system.token, ""):
        with pytest.raises(InvalidStatus) as refused:
            Agent(system.port, secret, "nobody")
        assert refused.value.response.status_code == 403


def test_an_enrolment_token_is_spent_once(system: System) -> None:
    token = system.http.post("enrolments/", json={}).json()["token"]
    body = {"token": token, "name": "spender", "profile": "cpu-demo", "infer_url": "http://127.0.0.1:8790"}
    url = f"{system.url}/api/v1/enrol/"

    assert httpx.post(url, json=body, trust_env=False).status_code == 201
    again = httpx.post(url, json={**body, "name": "second"}, trust_env=False)

    assert again.status_code == 403
    assert again.headers["Content-Type"] == "application/problem+json"
    assert again.json()["errors"][0] == {"pointer": "/token", "code": "token_used", "detail": "This enrolment token was used already."}


def test_telemetry_arrives_and_a_closed_link_is_offline_at_once(system: System) -> None:
    agent = online(system, "teller")
    status = system.get("nodes/teller/")["status"]
    assert (status["mode"], status["emb_ratio"], status["telemetry"]["latency_ms_p99"]) == ("auto", 0.5, 40.0)

    agent.vanish()

    until("the node to be offline", lambda: system.get("nodes/teller/")["status"]["phase"] == "offline", seconds=5)
    kinds = [item["kind"] for item in system.get("events/", target="teller")["results"]]
    assert kinds == ["node_offline", "node_online", "node_enrolled"]


def test_a_command_reaches_the_node_and_its_answer_is_seen(system: System) -> None:
    agent = online(system, "obeyer")

    document = system.override("obeyer", 0.7, ttl_seconds=60)
    command = agent.command()

    assert command.spec.generation == document["metadata"]["generation"] == 2
    assert (command.spec.mode, command.spec.emb_ratio, command.spec.reason, command.spec.actor) == (Mode.OVERRIDE, 0.7, "a test", "admin")
    assert command.spec.ttl_remaining_ms is not None
    assert 55_000 < command.spec.ttl_remaining_ms <= 60_000
    agent.send(Ack(command_id=command.command_id, observed_generation=2, accepted=True))
    until("the answer", lambda: system.get("nodes/obeyer/")["status"]["observed_generation"] == 2)
    assert agent.silent_for(3.0)
    agent.close()


def test_a_pools_size_reaches_the_node_and_stays_with_every_later_command(system: System) -> None:
    agent = online(system, "shrinker")

    system.resize("shrinker", 32 << 20)
    command = agent.command()
    assert (command.spec.mode, command.spec.pool_bytes) == (Mode.AUTO, 32 << 20)
    agent.send(Ack(command_id=command.command_id, observed_generation=2, accepted=True))
    until("the answer", lambda: system.get("nodes/shrinker/")["status"]["observed_generation"] == 2)

    system.override("shrinker", 0.7)
    later = agent.command().spec
    assert (later.mode, later.emb_ratio, later.pool_bytes) == (Mode.OVERRIDE, 0.7, 32 << 20)
    agent.close()


def test_a_command_nobody_acknowledged_is_sent_again_with_less_time_left(system: System) -> None:
    agent = online(system, "deaf")
    system.override("deaf", 0.7, ttl_seconds=60)

    first, second = agent.command(), agent.command()

    assert (first.command_id, first.spec.generation) == (second.command_id, second.spec.generation)
    assert first.spec.ttl_remaining_ms is not None
    assert second.spec.ttl_remaining_ms is not None
    assert second.spec.ttl_remaining_ms < first.spec.ttl_remaining_ms
    agent.close()


def test_a_node_that_was_away_gets_the_newest_command_only(system: System) -> None:
    credential = system.enrol("traveller")
    agent = Agent(system.port, credential, "traveller")
    agent.close()
    system.override("traveller", 0.3)
    system.override("traveller", 0.4)

    agent = Agent(system.port, credential, "traveller", observed_generation=1)

    assert (agent.command().spec.generation, agent.name) == (3, "traveller")
    agent.send(
        Ack(command_id=f"{system.get('nodes/traveller/')['metadata']['uid'].replace('-', '')}:3", observed_generation=3, accepted=True)
    )
    assert agent.silent_for(3.0)
    agent.close()


def test_a_node_that_forgot_its_spec_is_told_again(system: System) -> None:
    credential = system.enrol("amnesiac")
    agent = Agent(system.port, credential, "amnesiac")
    system.override("amnesiac", 0.3)
    command = agent.command()
    agent.send(Ack(command_id=command.command_id, observed_generation=2, accepted=True))
    until("the answer", lambda: system.get("nodes/amnesiac/")["status"]["observed_generation"] == 2)
    agent.close()

    agent = Agent(system.port, credential, "amnesiac", observed_generation=0)

    assert agent.command().spec.emb_ratio == 0.3
    agent.close()


def test_a_node_ahead_of_us_is_overtaken(system: System) -> None:
    agent = Agent(system.port, system.enrol("ahead"), "ahead", observed_generation=41)

    assert agent.command().spec.generation == 42
    assert system.get("audit/", target="ahead", action="node.leap_generation")["results"][0]["actor"] == "system"
    agent.close()


def test_a_refused_command_is_a_condition_and_is_not_sent_again(system: System) -> None:
    agent = online(system, "refuser")
    system.override("refuser", 0.7)
    command = agent.command()

    agent.send(
        Ack(
            command_id=command.command_id, observed_generation=1, accepted=False, error_code="outside_guard_rails", detail="too high for me"
        )
    )

    def applied() -> dict[str, str]:
        return next(item for item in system.get("nodes/refuser/")["status"]["conditions"] if item["type"] == "SpecApplied")

    until("the refusal", lambda: applied()["reason"] == "Refused")
    assert (applied()["status"], applied()["message"]) == ("False", "outside_guard_rails: too high for me")
    assert agent.silent_for(3.0)
    agent.close()


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\xc1\xff",
        b"",
        b"\x81\xa4type\xa5hello",
        "a text frame",
        b"\x82\xa4type\xa9telemetry\xa4name\x05",
        b"\x91" * 5000,
    ],
    ids=["not msgpack", "empty", "half a hello", "text", "wrong type", "too deep"],
)
def test_a_frame_that_does_not_decode_is_counted_and_the_link_stays(
    system: System, rubbish: bytes | str, request: pytest.FixtureRequest
) -> None:
    name = f"babbler-{abs(hash(request.node.name))}"
    agent = online(system, name)

    agent.send_raw(rubbish)

    until("the count", lambda: system.get(f"nodes/{name}/")["status"]["rejected_frames_total"] == 1)
    agent.send(telemetry(name, emb_ratio=0.61))
    until("the next frame", lambda: system.get(f"nodes/{name}/")["status"]["emb_ratio"] == 0.61)
    assert [item["kind"] for item in system.get("events/", target=name, kind="frame_rejected")["results"]] == ["frame_rejected"]
    agent.close()


def test_numbers_that_would_poison_history_are_rejected_by_name(system: System) -> None:
    agent = online(system, "poisoner")

    agent.send(telemetry("poisoner", emb_ratio=float("nan")))
    agent.send(telemetry("poisoner", requests_total=2**63))
    agent.send(telemetry("poisoner", at_unix_ns=2**62))
    agent.send(telemetry("poisoner", emb_hit_ratio=1.5))
    agent.send(telemetry("poisoner", controller="b\x00d"))
    agent.send(telemetry("impostor"))

    until("six counts", lambda: system.get("nodes/poisoner/")["status"]["rejected_frames_total"] == 6)
    text = system.get("events/", target="poisoner", kind="frame_rejected")["results"][0]["text"]
    assert text == "a frame of poisoner did not decode: $.emb_ratio: not a finite number"
    agent.close()


def test_frames_before_the_hello_are_not_believed(system: System) -> None:
    agent = Agent(system.port, system.enrol("rude"), "rude", greet=False)
    agent.send(telemetry("rude"))
    until("the count", lambda: system.get("nodes/rude/")["status"]["rejected_frames_total"] == 1)
    assert system.get("nodes/rude/")["status"]["telemetry"] is None

    agent.send(hello("rude"))
    agent.send(telemetry("rude"))

    until("the frame", lambda: system.get("nodes/rude/")["status"]["phase"] == "ready")
    agent.close()


def test_another_wire_version_is_sent_away(system: System) -> None:
    agent = Agent(system.port, system.enrol("old"), "old", wire_version=99)
    with pytest.raises(ConnectionClosed) as closed:
        agent.command()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4406


def test_a_second_link_of_a_node_replaces_the_first(system: System) -> None:
    credential = system.enrol("twin")
    first = Agent(system.port, credential, "twin")
    first.send(telemetry("twin"))
    second = Agent(system.port, credential, "twin")

    with pytest.raises(ConnectionClosed) as closed:
        first.command()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4409
    second.send(telemetry("twin", emb_ratio=0.77))
    until("the second link's frame", lambda: system.get("nodes/twin/")["status"]["emb_ratio"] == 0.77)
    assert system.get("nodes/twin/")["status"]["phase"] == "ready"
    second.close()


def test_decisions_and_events_of_a_node_are_kept(system: System) -> None:
    agent = online(system, "thinker")

    agent.send(decision("thinker", seq=7, before=0.5, granted=0.52))
    agent.send(event("override_applied", emb_ratio="0.700"))

    row = until("the decision", lambda: system.get("nodes/thinker/decisions/")["results"])[0]
    assert (row["seq"], row["emb_ratio_before"], row["emb_ratio_granted"], row["reason"]) == (7, 0.5, 0.52, "gradient")
    line = until("the event", lambda: system.get("events/", target="thinker", kind="override_applied")["results"])[0]
    assert line["detail"] == {"emb_ratio": "0.700"}
    agent.close()


def test_an_ended_override_goes_back_to_auto_in_the_desired_state_too(system: System) -> None:
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
