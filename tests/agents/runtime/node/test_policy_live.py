"""A real node told to decide by a policy: fetched while it serves, in force without a missed decision, kept over a restart."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from agents.wire.messages import Condition, ControllerMode, Mode, NodeSpec
from tests.agents.controller.policies import card, random_file
from tests.agents.runtime.node.parts import until
from tests.agents.runtime.node.serving import infer_body
from tests.agents.runtime.node.test_node_live import KEY, daemon, scores

FILE = random_file(card())
UNKNOWN = "ab" * 32


@asynccontextmanager
async def control_plane(asked: list[str]) -> AsyncIterator[str]:
    """Answers nothing but artefacts, and those only to the node's credential."""

    async def artefact(request: web.Request) -> web.Response:
        asked.append(request.match_info["digest"])
        if request.headers.get("Authorization") != "Bearer secret" or request.match_info["digest"] != FILE.digest:
            raise web.HTTPNotFound
        body = {"digest": FILE.digest, "card": FILE.card.decode(), "weights": base64.b64encode(FILE.weights).decode()}
        return web.json_response(body)

    app = web.Application()
    app.router.add_get("/api/v1/policies/{digest}/artefact/", artefact)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"ws://127.0.0.1:{runner.addresses[0][1]}/agents/v1/link"
    finally:
        await runner.cleanup()


async def test_a_policy_is_fetched_while_the_node_serves_and_survives_a_restart(tmp_path: Path) -> None:
    asked: list[str] = []
    (tmp_path / "credential").write_text("secret\n")
    async with control_plane(asked) as url:
        link = {"control_url": url, "credential_file": tmp_path / "credential"}
        async with daemon(tmp_path, **link) as (node, client):
            node.obey(NodeSpec(generation=1, policy_digest=FILE.digest, controller=ControllerMode.ADVISORY))
            while node.engine.telemetry().policy_digest != FILE.digest:
                await scores(client, infer_body(user="a", tokens=16))
            records = node.engine.decisions(512)[::-1]
            assert [record.seq for record in records] == list(range(records[0].seq, records[0].seq + len(records)))
            async with client.get("/metrics", headers=KEY) as response:
                assert f'helm_policy_info{{policy="helm",stage="advisory",version="{FILE.digest}"}} 1.0' in await response.text()

            node.obey(NodeSpec(generation=2, policy_digest=UNKNOWN))
            await until(lambda: _applied(node.engine.telemetry().conditions).reason == "FetchFailed")
            assert node.engine.controller_mode is ControllerMode.ADVISORY  # active is meant for the one that cannot be had
            assert "404" in _applied(node.engine.telemetry().conditions).message
            assert node.engine.telemetry().policy_digest == FILE.digest
            node.obey(NodeSpec(generation=3, policy_digest=FILE.digest))
            await until(lambda: _applied(node.engine.telemetry().conditions).status == "True")
        fetched = list(asked)
        async with daemon(tmp_path, **link) as (node, _):
            await until(lambda: node.engine.telemetry().policy_digest == FILE.digest)
    assert asked == fetched
    assert fetched.count(FILE.digest) == 1


async def test_what_a_node_was_told_and_found_out_about_its_policy_survives_a_restart(tmp_path: Path) -> None:
    (tmp_path / "credential").write_text("secret\n")
    async with control_plane([]) as url:
        link = {"control_url": url, "credential_file": tmp_path / "credential"}
        async with daemon(tmp_path, **link) as (node, _):
            node.obey(NodeSpec(generation=1, policy_digest=FILE.digest, policy_generation=1, controller=ControllerMode.ADVISORY))
            await until(lambda: node.engine.telemetry().policy_digest == FILE.digest)
            node.obey(NodeSpec(generation=2, policy_digest=UNKNOWN, policy_generation=2))
        async with daemon(tmp_path, **link) as (node, _):
            assert node.engine.controller_mode is ControllerMode.ADVISORY
            node.obey(NodeSpec(generation=3, policy_digest=FILE.digest, policy_generation=3))
            await until(lambda: node.engine.controller_mode is ControllerMode.ACTIVE)
            node._node.demote()
            await until(lambda: node.engine.telemetry().mode is Mode.DEMOTED)
        async with daemon(tmp_path, **link) as (node, client):
            await until(lambda: node.engine.telemetry().policy_digest == FILE.digest)
            await scores(client, infer_body(user="a", tokens=16))
            await until(lambda: node.engine.telemetry().mode is Mode.DEMOTED)
            node.obey(NodeSpec(generation=4, policy_digest=FILE.digest, policy_generation=4))
            await until(lambda: node.engine.telemetry().mode is Mode.AUTO)


def _applied(conditions: list[Condition]) -> Condition:
    return next(condition for condition in conditions if condition.type == "PolicyApplied")
