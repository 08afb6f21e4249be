"""What an operator does in a real browser, against the real control plane."""

import re

import httpx
import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.e2e.conftest import SignIn
from tests.e2e.puppet import Puppet
from tests.e2e.stage import PASSWORD, Stage
from tests.patience import until

pytestmark = pytest.mark.browser


def tile(page: Page, name: str) -> Locator:
    return page.locator(f"[data-node={name}]")


def panel(page: Page, title: str) -> Locator:
    return page.get_by_role("region", name=title, exact=True)


def test_an_empty_fleet_says_what_to_do_and_changes_by_itself_when_a_node_comes(sign_in: SignIn, stage: Stage, admin: httpx.Client) -> None:
    """Runs before any other test has brought a node."""
    page = sign_in("anna")
    page.goto(stage.url)
    expect(page.get_by_role("heading", name="No nodes yet")).to_be_visible()
    page.get_by_role("button", name="Make an enrolment token").click()
    expect(page.locator("pre")).to_contain_text(re.compile("helm_enrol_.*--control-url ws://127.0.0.1:", re.DOTALL))
    first = Puppet(stage.url, admin, "node-8")
    first.start()
    try:
        expect(tile(page, "node-8")).to_have_attribute("aria-label", re.compile("node-8, Auto, P99"))
    finally:
        first.stop()


def test_a_deep_link_asks_to_sign_in_refuses_a_wrong_password_and_then_shows_what_was_linked(
    page: Page, stage: Stage, puppets: dict[str, Puppet]
) -> None:
    page.goto(f"{stage.url}/nodes/node-0?range=6h")
    page.get_by_label("User name").fill("olga")
    page.locator("input[name=password]").fill("not hers")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("User name or password is wrong")

    page.locator("input[name=password]").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="node-0")).to_be_visible()
    expect(page.get_by_role("button", name="6h")).to_have_attribute("aria-pressed", "true")
    assert page.url.endswith("/nodes/node-0?range=6h")


def test_the_fleet_page_follows_its_nodes_live(sign_in: SignIn, stage: Stage, puppets: dict[str, Puppet]) -> None:
    page = sign_in("vera")
    page.goto(stage.url)
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    calm, over = tile(page, "node-0"), tile(page, "node-1")
    expect(calm).to_have_attribute("aria-label", re.compile(r"node-0, Auto, P99 42\.0 ms, under SLO, EMB 40 %, EMB hit 82 %, KV hit 64 %"))
    expect(over).to_have_attribute("aria-label", re.compile(r"P99 75\.5 ms, over SLO, EMB 55 %"))
    expect(calm).to_contain_text("emulated")
    # What needs attention comes first.
    assert page.locator("[data-node]").first.get_attribute("data-node") == "node-1"

    puppets["node-0"].latency_ms_p99, puppets["node-0"].emb_ratio = 47.3, 0.25
    try:
        expect(calm).to_have_attribute("aria-label", re.compile(r"P99 47\.3 ms, under SLO, EMB 25 %"))
    finally:
        puppets["node-0"].latency_ms_p99, puppets["node-0"].emb_ratio = 42.0, 0.40


def test_filter_order_and_view_live_in_the_address(sign_in: SignIn, stage: Stage, puppets: dict[str, Puppet]) -> None:
    page = sign_in("vera")
    page.goto(f"{stage.url}/?view=table&q=node-1")
    expect(page.get_by_role("row", name=re.compile("node-1"))).to_be_visible()
    expect(page.get_by_role("row", name=re.compile("node-0"))).to_have_count(0)

    page.keyboard.press("f")
    page.keyboard.press("Control+A")
    page.keyboard.type("nothing like it")
    expect(page.get_by_text("No node matches this filter.")).to_be_visible()
    page.get_by_role("button", name="Clear filter").click()
    expect(page.get_by_role("row", name=re.compile("node-0"))).to_be_visible()
    assert page.url.endswith("/?view=table")


def test_an_override_is_previewed_sent_confirmed_by_the_node_and_seen_everywhere(
    sign_in: SignIn, stage: Stage, puppets: dict[str, Puppet]
) -> None:
    page, puppet = sign_in("olga"), puppets["node-0"]
    page.goto(f"{stage.url}/nodes/node-0")
    form = panel(page, "Take by hand")
    form.get_by_label("EMB share in percent").fill("45")
    expect(form.get_by_text("Inside all guard rails.")).to_be_visible()
    expect(form.get_by_text("40.0 ms")).to_be_visible()

    # Without a reason nothing is sent, and the form says so.
    form.get_by_role("button", name="Override for 30 min").click()
    expect(form.get_by_text("At least 3 characters")).to_be_visible()
    assert puppet.spec.generation == 1

    puppet.obeys = False
    form.get_by_label("Reason").fill("flash sale, hold EMB")
    form.get_by_role("button", name="Override for 30 min").click()
    expect(form.get_by_text("Waiting for the node to confirm generation 2")).to_be_visible()
    expect(page.get_by_text("spec generation 2, observed 1")).to_be_visible()

    puppet.obeys = True
    expect(form.get_by_text("The node confirmed it: generation 2 is in force.")).to_be_visible()
    expect(form.get_by_text(re.compile("Overridden at 45.0 % by olga until .* “flash sale, hold EMB”"))).to_be_visible()
    assert puppet.emb_ratio == pytest.approx(0.45)
    expect(panel(page, "Recent decisions").get_by_role("cell", name="Override").first).to_be_visible()
    expect(panel(page, "Events").get_by_text("olga overrode")).to_be_visible()

    page.goto(stage.url)
    expect(tile(page, "node-0")).to_have_attribute("aria-label", re.compile("node-0, Override, .* EMB 45 %"))
    expect(tile(page, "node-0")).to_contain_text("30 m left")
    page.goto(f"{stage.url}/audit?action=node.override")
    page.get_by_role("row", name=re.compile("olga node.override node-0 flash sale")).click()
    expect(page.get_by_label("Change")).to_contain_text('+ mode: "override"')

    page.goto(f"{stage.url}/nodes/node-0?take=release")
    form = panel(page, "Take by hand")
    form.get_by_label("Reason").fill("sale is over")
    form.get_by_role("button", name="Release").last.click()
    expect(form.get_by_text("generation 3 is in force")).to_be_visible()
    expect(page.get_by_role("button", name="Release").first).to_be_disabled()
    puppet.emb_ratio = 0.40


def test_a_wish_that_hurts_asks_for_the_name_and_one_outside_the_rails_is_blocked(
    sign_in: SignIn, stage: Stage, puppets: dict[str, Puppet]
) -> None:
    page, puppet = sign_in("olga"), puppets["node-1"]
    before = puppet.spec.generation
    page.goto(f"{stage.url}/nodes/node-1?take=pin")
    form = panel(page, "Take by hand")
    form.get_by_label("EMB share in percent").fill("95")
    expect(form.get_by_text("Outside the guard rails (10 to 90 %).").first).to_be_visible()

    form.get_by_label("EMB share in percent").fill("88")
    form.get_by_label("Reason").fill("trying what hurts")
    form.get_by_role("button", name="Review pin").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("This is expected to make things slower.")).to_be_visible()
    confirm = dialog.get_by_role("button", name="Pin anyway")
    expect(confirm).to_be_disabled()
    dialog.get_by_role("button", name="Cancel").click()
    assert puppet.spec.generation == before

    form.get_by_role("button", name="Review pin").click()
    dialog.get_by_label("Type node-1 to confirm").fill("node-1")
    confirm.click()
    expect(form.get_by_text(f"generation {before + 1} is in force")).to_be_visible()
    assert puppet.emb_ratio == pytest.approx(0.88)
    # A pin stands until released: an override is refused, and the button says why.
    page.get_by_role("group", name="What to do").get_by_role("button", name="Override").click()
    expect(form.get_by_text("The node is pinned: release it first.")).to_be_visible()


def test_a_pool_is_resized_by_hand_with_its_price_and_given_back(sign_in: SignIn, stage: Stage, puppets: dict[str, Puppet]) -> None:
    page, puppet = sign_in("olga"), puppets["node-1"]
    page.goto(f"{stage.url}/nodes/node-1")
    pool = panel(page, "HBM pool")
    expect(pool.get_by_role("row", name=re.compile("^Both 64.0 MiB 64.0 MiB"))).to_be_visible()
    expect(panel(page, "Latency by stage").get_by_text("95.0 % of 20,000")).to_be_visible()
    pool.get_by_role("button", name="Resize").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Pool size").fill("a bit less")
    expect(dialog.get_by_text("For instance 32 MiB")).to_be_visible()
    dialog.get_by_label("Pool size").fill("65 MiB")
    expect(dialog.get_by_text("At most 64.0 MiB: the node was started with no more.")).to_be_visible()

    dialog.get_by_label("Pool size").fill("32 MiB")
    expect(dialog.get_by_text(re.compile("32.0 MiB leave the pool"))).to_be_visible()
    shrink = dialog.get_by_role("button", name="Shrink to 32.0 MiB")
    expect(shrink).to_be_disabled()
    dialog.get_by_label("Type node-1 to confirm").fill("node-1")
    shrink.click()
    expect(dialog.get_by_text("At least 3 characters")).to_be_visible()
    dialog.get_by_label("Reason").fill("a neighbour moves in")
    shrink.click()
    expect(dialog).to_have_count(0)
    expect(pool.get_by_text("Set to 32.0 MiB of 64.0 MiB.")).to_be_visible()
    expect(pool.get_by_role("row", name=re.compile("^Both 32.0 MiB 32.0 MiB"))).to_be_visible()
    assert puppet.spec.pool_bytes == 32 << 20

    pool.get_by_role("button", name="Resize").click()
    dialog.get_by_label("All that the node's profile has, 64.0 MiB").check()
    dialog.get_by_label("Reason").fill("it moved out")
    dialog.get_by_role("button", name="Grow to 64.0 MiB").click()
    expect(dialog).to_have_count(0)
    expect(pool.get_by_role("row", name=re.compile("^Both 64.0 MiB 64.0 MiB"))).to_be_visible()
    assert puppet.spec.pool_bytes is None


def test_who_looked_at_an_older_version_is_told_and_nothing_is_overwritten(
    sign_in: SignIn, stage: Stage, puppets: dict[str, Puppet], admin: httpx.Client
) -> None:
    page = sign_in("olga")
    page.goto(f"{stage.url}/nodes/node-0")
    form = panel(page, "Take by hand")
    form.get_by_label("EMB share in percent").fill("44")
    form.get_by_label("Reason").fill("mine")

    # Somebody else writes at the very moment this page sends: its version is one too old.
    def meanwhile(route: Route) -> None:
        if "dry_run" not in route.request.url:
            etag = admin.get(f"{stage.url}/api/v1/nodes/node-0/").headers["ETag"]
            body = {"emb_ratio": 0.3, "reason": "somebody was faster"}
            admin.post(f"{stage.url}/api/v1/nodes/node-0/pin/", json=body, headers={"If-Match": etag}).raise_for_status()
        route.continue_()

    page.route("**/override/**", meanwhile)
    form.get_by_role("button", name="Override for 30 min").click()
    expect(form.get_by_text("Somebody changed node-0 meanwhile")).to_be_visible()
    expect(form.get_by_text("Pinned at 30.0 % by anna until released: “somebody was faster”")).to_be_visible()
    until("the node to be pinned", lambda: puppets["node-0"].emb_ratio == pytest.approx(0.3))


def test_a_viewer_sees_every_verb_and_why_it_is_not_for_them(sign_in: SignIn, stage: Stage, puppets: dict[str, Puppet]) -> None:
    page = sign_in("vera")
    page.goto(f"{stage.url}/nodes/node-1")
    form = panel(page, "Take by hand")
    expect(form.get_by_text("Needs the permission node.override.")).to_be_visible()
    expect(form.get_by_role("button", name=re.compile("^Override for"))).to_be_disabled()
    expect(form.get_by_label("Reason")).to_be_disabled()
    page.get_by_role("button", name="Pin", exact=True).first.hover()
    expect(page.get_by_role("tooltip")).to_contain_text("Needs the permission node.pin.")
    panel(page, "HBM pool").get_by_role("button", name="Resize").hover()
    expect(page.get_by_role("tooltip").filter(has_text="node.resize")).to_be_visible()
    page.goto(f"{stage.url}/whatifs")
    expect(page.get_by_role("button", name="Run simulation")).to_be_disabled()
    expect(page.get_by_text("Your role (viewer) can look but not run simulations.")).to_be_visible()


def test_the_keyboard_leads_everywhere_and_the_theme_is_kept(sign_in: SignIn, stage: Stage, puppets: dict[str, Puppet]) -> None:
    page = sign_in("vera")
    page.goto(stage.url)
    expect(tile(page, "node-0")).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type("node-1")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="node-1")).to_be_visible()
    page.keyboard.press("k")
    expect(page.get_by_role("heading", name="node-0")).to_be_visible()
    page.keyboard.press("]")
    expect(page).to_have_url(re.compile("range=1h"))
    page.keyboard.press("g")
    page.keyboard.press("a")
    expect(page.get_by_role("heading", name="Audit log")).to_be_visible()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("Light or dark theme")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    before = page.locator("html").get_attribute("data-mantine-color-scheme")
    page.keyboard.press("t")
    after = {"dark": "light", "light": "dark"}[str(before)]
    expect(page.locator("html")).to_have_attribute("data-mantine-color-scheme", after)
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-mantine-color-scheme", after)


def test_a_session_that_ended_leads_to_the_sign_in_form_at_the_same_address(
    sign_in: SignIn, stage: Stage, puppets: dict[str, Puppet]
) -> None:
    page = sign_in("vera")
    page.goto(f"{stage.url}/nodes/node-0")
    expect(page.get_by_role("heading", name="node-0")).to_be_visible()
    page.context.clear_cookies()
    page.get_by_role("link", name="Audit").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.get_by_label("User name").fill("vera")
    page.locator("input[name=password]").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Audit log")).to_be_visible()


def test_a_finished_what_if_is_drawn_and_told_in_one_sentence(sign_in: SignIn, stage: Stage) -> None:
    page = sign_in("vera")
    page.goto(f"{stage.url}/whatifs/{stage.whatif_uid}")
    sentence = "The controller's P99 is 20 % below the better fixed ratio (static 0.60): 56.0 against 70.0 ms."
    expect(page.get_by_text(sentence)).to_be_visible()
    expect(page.get_by_role("row", name=re.compile(r"controller .*56\.0 \u221214\.0 ms"))).to_be_visible()
    # Plotly itself has drawn three lines in each of four panels.
    expect(page.get_by_test_id("whatif-figure").locator(".scatterlayer .trace")).to_have_count(12)


def test_a_queued_what_if_can_be_followed_and_cancelled_and_a_wrong_field_is_named(sign_in: SignIn, stage: Stage) -> None:
    page = sign_in("olga")
    page.goto(f"{stage.url}/whatifs")
    page.get_by_label("Nodes", exact=True).fill("4000")
    page.get_by_role("button", name="Run simulation").click()
    expect(page.get_by_text(re.compile("less than or equal to 64"))).to_be_visible()
    page.get_by_label("Nodes", exact=True).fill("2")
    page.get_by_role("button", name="Run simulation").click()
    run = panel(page, "Burst, 2 nodes")
    expect(run.get_by_text("Queued", exact=True)).to_be_visible()
    expect(run.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "0")
    run.get_by_role("button", name="Cancel run").click()
    expect(run.get_by_text("Cancelled", exact=True)).to_be_visible()


def test_the_page_says_that_the_stream_is_gone_keeps_its_numbers_and_recovers_by_itself(
    sign_in: SignIn, stage: Stage, puppets: dict[str, Puppet]
) -> None:
    page = sign_in("vera")
    page.goto(stage.url)
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    stage.kill_web()
    try:
        banner = page.get_by_role("alert").filter(has_text="Live stream lost")
        expect(banner).to_be_visible()
        expect(banner).to_contain_text("Nodes keep running on their own controllers.")
        expect(page.get_by_text("Stale", exact=True)).to_be_visible()
        # The last values stay on the screen, marked with their age.
        expect(tile(page, "node-1")).to_contain_text("/ 60 ms P99")
        expect(page.get_by_title("Age of these numbers").first).to_be_visible()
    finally:
        stage.start_web()
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    expect(page.get_by_role("alert").filter(has_text="Live stream lost")).to_have_count(0)
    puppets["node-1"].latency_ms_p99 = 58.5
    try:
        expect(tile(page, "node-1")).to_have_attribute("aria-label", re.compile(r"P99 58\.5 ms, under SLO"))
    finally:
        puppets["node-1"].latency_ms_p99 = 75.5


def test_a_redis_that_was_away_costs_no_reload(sign_in: SignIn, stage: Stage, puppets: dict[str, Puppet]) -> None:
    page = sign_in("vera")
    page.goto(stage.url)
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    stage.kill_redis()
    expect(page.get_by_text("Stale", exact=True)).to_be_visible()
    stage.start_redis()
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    puppets["node-0"].latency_ms_p99 = 31.7
    try:
        expect(tile(page, "node-0")).to_have_attribute("aria-label", re.compile(r"P99 31\.7 ms"))
    finally:
        puppets["node-0"].latency_ms_p99 = 42.0


def test_a_node_that_falls_silent_is_offline_within_five_seconds(
    sign_in: SignIn, stage: Stage, puppets: dict[str, Puppet], admin: httpx.Client
) -> None:
    page = sign_in("vera")
    quitter = Puppet(stage.url, admin, "node-9")
    quitter.start()
    page.goto(stage.url)
    expect(tile(page, "node-9")).to_have_attribute("aria-label", re.compile("node-9, Auto, P99"))
    quitter.stop()
    expect(tile(page, "node-9")).to_have_attribute("aria-label", "node-9, Offline, no data", timeout=5000)
    expect(tile(page, "node-9")).to_contain_text("No heartbeat")


def test_nothing_spills_over_on_a_phone(sign_in: SignIn, stage: Stage, puppets: dict[str, Puppet]) -> None:
    page = sign_in("vera")
    page.set_viewport_size({"width": 390, "height": 844})
    for path in ("/", "/nodes/node-0", "/whatifs", "/audit", "/tokens"):
        page.goto(f"{stage.url}{path}")
        expect(page.get_by_role("navigation", name="Primary")).to_be_visible()
        expect(page.locator("main section").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path


def test_a_policy_is_set_on_a_node_and_taken_back_by_keyboard_and_a_run_is_watched(
    sign_in: SignIn, stage: Stage, puppets: dict[str, Puppet]
) -> None:
    page = sign_in("olga")
    page.goto(stage.url)
    expect(tile(page, "node-1")).to_be_visible()
    page.keyboard.press("g")
    page.keyboard.press("p")
    expect(page.get_by_role("heading", name="Policies")).to_be_visible()
    registry = panel(page, "Registry")
    expect(registry.get_by_role("row", name=re.compile("helm v2.*Rejected.*helm v1.*\\+4\\.0 %"))).to_be_visible()

    registry.get_by_role("link", name="helm v1").click()
    panel(page, "helm v1").get_by_role("button", name="Set on nodes").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Set", exact=True)).to_be_disabled()
    dialog.get_by_label("Nodes", exact=True).click()
    page.get_by_role("option", name="node-1").click()
    dialog.get_by_label("Reason").fill("a first look")
    dialog.get_by_role("button", name="Set", exact=True).click()
    expect(dialog).to_have_count(0)
    expect(registry.get_by_role("row", name=re.compile("helm v1.*1 advisory"))).to_be_visible()
    until("the node to be told", lambda: puppets["node-1"].spec.controller == "advisory" and puppets["node-1"].spec.policy_digest != "")

    # A deep link leads to the same version; `b` takes it back.
    page.goto(f"{stage.url}/policies/{puppets['node-1'].spec.policy_digest[:12]}")
    expect(panel(page, "helm v1").get_by_text("node-1")).to_be_visible()
    page.keyboard.press("b")
    back = page.get_by_role("dialog")
    back.get_by_label("All").check()
    back.get_by_label("Reason").fill("seen enough")
    back.get_by_role("button", name="Roll back").click()
    until("the node to be told again", lambda: puppets["node-1"].spec.policy_digest == "")

    training = panel(page, "Training")
    training.get_by_role("button", name="Start training run").click()
    expect(training.get_by_role("progressbar")).to_be_visible()
    expect(training.get_by_text("Queued", exact=True)).to_be_visible()
    training.get_by_role("button", name="Cancel run").click()
    expect(training.get_by_role("button", name="Start training run")).to_be_visible()
    training.get_by_role("link", name=re.compile("helm v2, Done")).click()
    expect(training.get_by_role("img", name=re.compile("Mean reward: 0\\.100 after 928 steps"))).to_be_visible()

    schedule = panel(page, "Schedule")
    schedule.get_by_label("When").fill("at night")
    schedule.get_by_role("button", name="Save schedule").click()
    expect(schedule.get_by_text(re.compile("Five fields are needed"))).to_be_visible()
    schedule.get_by_label("When").fill("15 4 * * *")
    schedule.get_by_label("Tune by itself").check(force=True)
    schedule.get_by_role("button", name="Save schedule").click()
    expect(schedule.get_by_text(re.compile("Next at .*04:15"))).to_be_visible()


def test_a_viewer_sees_policies_and_can_change_none(sign_in: SignIn, stage: Stage, puppets: dict[str, Puppet]) -> None:
    page = sign_in("vera")
    page.goto(f"{stage.url}/policies")
    for name in ("Roll back", "Set on nodes", "Start training run", "Save schedule"):
        expect(page.get_by_role("button", name=name)).to_be_disabled()
