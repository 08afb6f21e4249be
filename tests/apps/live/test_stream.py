"""The operators' stream against a running control plane."""

import time

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.apps.frames import telemetry
from tests.apps.live.system import Agent, Console, System
from tests.patience import until

pytestmark = pytest.mark.live


def number(seq: str) -> tuple[int, int]:
    head, tail = seq.split("-")
    return int(head), int(tail)


def closing_code(console: Console) -> int:
    with pytest.raises(ConnectionClosed) as closed:
        console.next()
    assert closed.value.rcvd is not None
    return int(closed.value.rcvd.code)


def test_a_console_begins_with_a_snapshot(system: System) -> None:
    system.enrol("shown")
    console = system.console()

    first = console.next()

    assert (first["type"], first["topic"]) == ("snapshot", "snapshot")
    assert set(first["data"]) == {"fleet", "nodes", "events", "jobs"}
    assert "shown" in {node["metadata"]["name"] for node in first["data"]["nodes"]}
    assert first["data"]["nodes"][0]["allowed_actions"][0] == {"action": "override", "allowed": True, "reason": ""}
    console.close()


def test_ticks_come_once_a_second_in_order(system: System) -> None:
    console = system.console("?topics=fleet")
    console.next()

    ticks = [console.next() for _ in range(4)]

    assert {tick["type"] for tick in ticks} == {"fleet.tick"}
    seqs = [number(tick["seq"]) for tick in ticks]
    assert seqs == sorted(seqs)
    seconds = [seq[0] / 1000 for seq in seqs]
    assert seconds[-1] - seconds[0] > 1.5  # a busy machine may bunch two, never all
    assert ticks[0]["data"]["nodes_total"] == len(system.get("nodes/")["results"])
    console.close()


def test_changed_nodes_and_events_come_by_themselves(system: System) -> None:
    console = system.console("?topics=nodes,events")
    assert console.next()["type"] == "snapshot"
    agent = Agent(system.port, system.enrol("changer"), "changer")
    agent.send(telemetry("changer", emb_ratio=0.62))

    event = console.next_of(
        "event", where=lambda message: message["data"]["kind"] == "node_online" and message["data"]["target"] == "changer"
    )
    assert event["data"]["text"] == "changer is online"

    def is_there(message: dict[str, object]) -> bool:
        return any(node["metadata"]["name"] == "changer" and node["status"]["emb_ratio"] == 0.62 for node in message["data"])  # type: ignore[attr-defined]

    console.next_of("nodes.delta", where=is_there)
    agent.vanish()
    console.next_of("event", where=lambda message: message["data"]["kind"] == "node_offline" and message["data"]["target"] == "changer")

    def is_offline(message: dict[str, object]) -> bool:
        return any(node["metadata"]["name"] == "changer" and node["status"]["phase"] == "offline" for node in message["data"])  # type: ignore[attr-defined]

    console.next_of("nodes.delta", where=is_offline)
    console.close()


def test_a_console_that_comes_back_gets_what_it_missed_once(system: System) -> None:
    console = system.console("?topics=events")
    last = console.next()["seq"]
    console.close()
    for name in ("missed-1", "missed-2"):
        system.enrol(name)
    until("the events", lambda: system.get("events/", target="missed-2")["results"])

    back = system.console(f"?topics=events&resume_from={last}")
    missed = [back.next()["data"]["target"] for _ in range(2)]

    assert missed == ["missed-1", "missed-2"]
    system.enrol("live-again")
    assert back.next()["data"]["target"] == "live-again"
    back.close()


@pytest.mark.parametrize("seq", ["1-0", f"{int((time.time() - 3600) * 1000)}-0", "9999999999999-0"], ids=["gone", "an-hour-old", "to-come"])
def test_a_number_that_is_gone_or_was_never_given_means_reading_again(system: System, seq: str) -> None:
    console = system.console(f"?topics=fleet&resume_from={seq}")
    assert [console.next()["type"] for _ in range(2)] == ["resync", "snapshot"]
    console.close()


def test_only_people_who_may_read_get_the_stream(system: System) -> None:
    assert closing_code(system.console(token="")) == 4401
    assert closing_code(system.console(token="helm_wrong")) == 4401


@pytest.mark.parametrize("query", ["?topics=secrets", "?resume_from=yesterday"])
def test_a_question_that_makes_no_sense_is_closed(system: System, query: str) -> None:
    assert closing_code(system.console(query)) == 4400


def test_a_cookie_opens_the_stream_for_its_own_page_only(system: System) -> None:
    session = httpx.Client(base_url=system.url, trust_env=False)
    answer = session.post("/api/v1/session/", json={"username": "admin", "password": system.seeded["password"]})
    assert answer.status_code == 200
    cookie = "; ".join(f"{name}={value}" for name, value in session.cookies.items())
    address = f"ws://127.0.0.1:{system.port}/api/v1/stream?topics=fleet"

    own = connect(address, additional_headers={"Cookie": cookie, "Origin": system.url}, proxy=None, legacy=True)
    assert '"snapshot"' in str(own.recv(timeout=20))
    own.close()

    foreign = connect(address, additional_headers={"Cookie": cookie, "Origin": "http://evil.example"}, proxy=None, legacy=True)
    with pytest.raises(ConnectionClosed) as closed:
        foreign.recv(timeout=20)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4403


def test_two_web_processes_draw_one_frame_a_second(system: System) -> None:
    from tests.patience import free_port

    port = free_port()
    system.start_web("second", port)
    first, second = system.console("?topics=fleet"), system.console("?topics=fleet", port=port)
    assert (first.next()["type"], second.next()["type"]) == ("snapshot", "snapshot")

    heard = [[console.next() for _ in range(5)] for console in (first, second)]

    for ticks in heard:
        seconds = [number(tick["seq"])[0] / 1000 for tick in ticks]
        assert seconds[-1] - seconds[0] > 2.0
    common = {tick["seq"] for tick in heard[0]} & {tick["seq"] for tick in heard[1]}
    assert len(common) >= 3
    for console in (first, second):
        console.close()
    system.stop("second")


def test_a_command_finds_the_process_that_holds_the_link(system: System) -> None:
    from tests.patience import free_port

    port = free_port()
    system.start_web("third", port)
    agent = Agent(port, system.enrol("elsewhere"), "elsewhere")

    system.override("elsewhere", 0.45)

    assert agent.command().spec.emb_ratio == 0.45
    agent.close()
    system.stop("third")


def test_unknown_sockets_are_refused(system: System) -> None:
    from websockets.exceptions import InvalidStatus

    with pytest.raises(InvalidStatus):
        connect(f"ws://127.0.0.1:{system.port}/api/v1/other", proxy=None, legacy=True)
