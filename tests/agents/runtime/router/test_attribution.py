"""Predicted against observed: what is compared, and where it is shown."""

import msgspec
import pytest

from agents.runtime.router.attribution import Attribution, observed_ms
from tests.agents.runtime.router.fakes import KEY, ask, get, infer, running

OPERATOR = f"authorization: Bearer {KEY}\r\n".encode()
TIMING = b"server-timing: queue;dur=1.000, emb;dur=2.000, kv;dur=0.500, compute;dur=3.500\r\n"


def test_a_nodes_timing_is_grouped_and_the_rest_is_the_hop() -> None:
    told = observed_ms(b"queue;dur=1.000, emb;dur=2.000, kv;dur=0.500, compute;dur=3.500", 9.0)
    assert told == {"queue": 1.0, "emb": 2.0, "compute": 4.0, "hop": 2.0, "total": 9.0}


@pytest.mark.parametrize("timing", [b"", b"miss", b"queue;dur=x", b"queue;dur=-1"])
def test_a_timing_that_says_nothing_is_no_observation(timing: bytes) -> None:
    assert observed_ms(timing, 9.0) is None


def test_errors_of_opposite_sign_do_not_cancel() -> None:
    sums = Attribution()
    for observed in (1.0, 3.0):
        sums.add(dict.fromkeys(sums.error_ms, 2.0), dict.fromkeys(sums.error_ms, observed))
    first = sums.means()[0]
    assert first == {"component": "queue", "predicted_ms": 2.0, "observed_ms": 2.0, "error_ms": 1.0}


async def test_an_answer_is_held_against_its_prediction_on_every_page() -> None:
    async with running(1) as fleet:
        fleet.nodes[0].script = lambda exchange, seen: exchange.reply(extra=TIMING)
        assert (await ask(fleet.port, infer(extra=b"x-request-id: r-1\r\n"))).status == 200
        told = msgspec.json.decode((await ask(fleet.port, get(b"/debug/picks/r-1", OPERATOR))).body)
        assert (told["observed"]["queue"], told["observed"]["emb"], told["observed"]["compute"]) == (1.0, 2.0, 4.0)
        assert told["predicted"]["total"] == pytest.approx(told["predicted_ms"], rel=1e-6)
        view = msgspec.json.decode((await ask(fleet.port, get(b"/v1/fleet", OPERATOR))).body)["attribution"]
        assert view["count"] == 1
        page = (await ask(fleet.port, get(b"/metrics"))).body.decode()
        assert 'helm_router_observed_seconds_total{component="compute"} 0.004' in page
        assert "helm_router_compared_answers_total 1.0" in page


async def test_recent_picks_are_listed_newest_first_for_holders_of_the_key() -> None:
    async with running(1) as fleet:
        for name in (b"r-1", b"r-2"):
            await ask(fleet.port, infer(extra=b"x-request-id: %s\r\n" % name))
        assert (await ask(fleet.port, get(b"/debug/picks"))).status == 401
        told = msgspec.json.decode((await ask(fleet.port, get(b"/debug/picks", OPERATOR))).body)
        assert [entry["request_id"] for entry in told] == ["r-2", "r-1"]


async def test_a_node_that_does_not_tell_its_times_is_not_compared() -> None:
    async with running(1) as fleet:
        await ask(fleet.port, infer())
        assert fleet.daemon.attribution.count == 0
