"""The routing page in a real browser: what a person learns about picks, and what it says when there is nothing to learn."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.agents.runtime.router.fakes import KEY, infer, infer_body
from tests.e2e.conftest import SignIn
from tests.e2e.routed import RoutedFleet
from tests.e2e.stage import Stage
from tests.e2e.test_console import panel

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def routed(stage: Stage) -> Iterator[RoutedFleet]:
    file = stage.folder / "fleet.json"
    fleet = RoutedFleet(file)
    fleet.start()
    yield fleet
    fleet.stop()
    file.unlink()


def routing(page: Page, stage: Stage, pick: str = "") -> Page:
    page.goto(f"{stage.url}/routing{f'?pick={pick}' if pick else ''}")
    expect(page.get_by_role("heading", name="Routing", exact=True)).to_be_visible()
    return page


def test_without_a_router_every_panel_says_so_and_offers_to_try_again(sign_in: SignIn, stage: Stage) -> None:
    page = routing(sign_in("vera"), stage)
    for title in ("Recent picks", "Balance", "Predicted against observed"):
        expect(panel(page, title).get_by_role("alert")).to_have_text(re.compile("No router is known here"))
        expect(panel(page, title).get_by_role("button", name="Try again")).to_be_visible()


def test_a_router_that_has_routed_nothing_yet_says_so(sign_in: SignIn, stage: Stage, routed: RoutedFleet) -> None:
    page = routing(sign_in("vera"), stage)
    expect(panel(page, "Recent picks")).to_contain_text("No request has been routed yet.")
    expect(panel(page, "Why this node")).to_contain_text("Choose a pick, or enter the x-request-id of an answer.")
    expect(panel(page, "Predicted against observed")).to_contain_text("No answer has been compared yet.")
    expect(panel(page, "Balance").get_by_role("row")).to_have_count(4)


def test_picks_are_listed_and_each_is_explained_node_by_node(sign_in: SignIn, stage: Stage, routed: RoutedFleet) -> None:
    for number in range(3):
        assert routed.ask(infer(infer_body(f"u{number}"), f"x-request-id: plain-{number}\r\n".encode())).status == 200
    page = routing(sign_in("vera"), stage)
    rows = panel(page, "Recent picks").locator("tbody tr")
    expect(rows).to_have_count(3)
    why = panel(page, "Why this node")
    expect(why).to_contain_text("plain-2")  # the newest, until somebody chooses

    rows.nth(1).click()
    expect(page).to_have_url(re.compile(r"\?pick=plain-1$"))
    expect(why).to_contain_text("plain-1")
    expect(why).to_contain_text(re.compile(r"history\s*128\s*tokens"))
    candidates = why.locator("tbody tr")
    expect(candidates).to_have_count(3)
    expect(candidates.first).to_contain_text("chosen")
    expect(candidates.first.get_by_role("img")).to_have_attribute(
        "aria-label", re.compile(r"Queue ahead .* ms, KV recompute 1\.\d+ ms, EMB misses")
    )
    expect(why).to_contain_text(re.compile("as good as equal|won over|a user's hash decides"))
    attribution = panel(page, "Predicted against observed")
    expect(attribution).to_contain_text("3 answers")
    expect(attribution.get_by_role("row", name=re.compile("Network and hop"))).to_contain_text(re.compile(r"not predicted\d"))


def test_a_steered_pick_says_why_each_other_node_was_left_out(sign_in: SignIn, stage: Stage, routed: RoutedFleet) -> None:
    routed.drain(0)
    steered = f"authorization: Bearer {KEY}\r\nx-helm-force-node: node-2\r\nx-request-id: steered\r\n"
    assert routed.ask(infer(extra=steered.encode())).status == 200
    nowhere = f"x-gateway-destination-endpoint-subset: {routed.endpoint(0)}\r\nx-request-id: nowhere\r\n"
    assert routed.ask(infer(extra=nowhere.encode())).status == 503
    page = routing(sign_in("vera"), stage, "steered")
    why = panel(page, "Why this node")
    expect(why.get_by_role("row", name=re.compile("node-0"))).to_contain_text("draining")
    expect(why.get_by_role("row", name=re.compile("node-1"))).to_contain_text("another node was forced")
    expect(why).to_contain_text("node-2 was the only node that could take it.")
    expect(panel(page, "Balance").get_by_role("row", name=re.compile("node-0"))).to_contain_text("draining")

    page.get_by_label("Explain a request by its id").fill("nowhere")
    page.keyboard.press("Enter")
    expect(why).to_contain_text("No node could take this request.")
    expect(why.get_by_role("row", name=re.compile("node-1"))).to_contain_text("not among the allowed endpoints")


def test_a_request_that_is_not_kept_is_said_to_be(sign_in: SignIn, stage: Stage, routed: RoutedFleet) -> None:
    page = routing(sign_in("vera"), stage, "never-heard-of")
    expect(panel(page, "Why this node").get_by_role("alert")).to_have_text("The router keeps no sampled pick of this request.")


def test_a_router_that_falls_silent_leaves_its_last_figures_and_a_warning(sign_in: SignIn, stage: Stage, routed: RoutedFleet) -> None:
    """Runs last: the router does not come back."""
    page = routing(sign_in("vera"), stage)
    expect(panel(page, "Balance").get_by_role("row")).to_have_count(4)
    routed.stop()
    expect(page.get_by_text("The router does not answer. These are its figures of")).to_be_visible()
    expect(panel(page, "Balance").get_by_role("row")).to_have_count(4)
