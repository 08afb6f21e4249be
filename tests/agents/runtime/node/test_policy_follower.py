"""A node follows the policy it is told: fetched, checked, switched; on any failure the present one stays."""

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from agents.artifacts.policy_file import ArtefactError, PolicyFile, Refusal
from agents.node.report import PolicyFacts
from agents.runtime.policy_fetch import FetchError, policy_url
from agents.runtime.policy_follower import PolicyFollower
from agents.runtime.policy_store import FILES_MAX, PolicyStore
from agents.wire.errors import ErrorCode, WireError
from agents.wire.events import EventKind
from tests.agents.controller.policies import card, random_file
from tests.agents.runtime.node.parts import until

FIRST, SECOND = random_file(card(), 1), random_file(card(), 2)


class Node:
    """Everything around a follower, written down in order."""

    def __init__(self, folder: Path, *answers: PolicyFile | Exception) -> None:
        self.answers = list(answers)
        self.fetched: list[str] = []
        self.switched: list[str] = []
        self.facts: list[PolicyFacts] = []
        self.events: list[tuple[EventKind, dict[str, str]]] = []
        self.refuses = False
        self.store = PolicyStore(folder / "policies", folder / "policy")
        self.follower = PolicyFollower(
            store=self.store,
            fetch=self.fetch,
            switch=self.switch,
            warm=lambda: None,
            tell=self.facts.append,
            announce=lambda kind, detail: self.events.append((kind, detail)),
            chance=random.Random(1),
            pause_seconds_min=0.002,
        )

    async def fetch(self, digest: str) -> PolicyFile:
        self.fetched.append(digest)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def switch(self, file: PolicyFile | None) -> None:
        if self.refuses:
            raise WireError(ErrorCode.INVALID_REQUEST, "takes no policy", "policy_digest")
        self.switched.append("own" if file is None else file.digest)

    async def __aenter__(self) -> "Node":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.follower.close()

    @property
    def reason(self) -> str:
        return self.facts[-1].reason


async def test_a_policy_is_fetched_checked_and_put_in_force_once(tmp_path: Path) -> None:
    async with Node(tmp_path, FIRST) as node:
        node.follower.want(FIRST.digest)
        assert node.reason == "Fetching"
        await until(lambda: node.switched == [FIRST.digest])
        node.follower.want(FIRST.digest)
        assert (node.fetched, node.facts[-1].applied, node.reason) == ([FIRST.digest], True, "InForce")
        assert node.events == [(EventKind.POLICY_SWITCHED, {"policy_digest": FIRST.digest})]


async def test_without_a_digest_the_node_is_its_own_again(tmp_path: Path) -> None:
    async with Node(tmp_path, FIRST) as node:
        node.follower.want(FIRST.digest)
        await until(lambda: bool(node.switched))
        node.follower.want("")
        await until(lambda: node.switched == [FIRST.digest, "own"])
        assert (node.store.wanted, node.reason) == ("", "OwnController")


async def test_after_a_restart_it_decides_by_the_kept_policy_without_asking_anybody(tmp_path: Path) -> None:
    async with Node(tmp_path, FIRST) as before:
        before.follower.want(FIRST.digest)
        await until(lambda: bool(before.switched))
    after = Node(tmp_path)
    after.follower.restore()
    assert (after.switched, after.fetched) == ([FIRST.digest], [])


async def test_a_kept_policy_that_was_damaged_is_fetched_again(tmp_path: Path) -> None:
    async with Node(tmp_path, FIRST) as before:
        before.follower.want(FIRST.digest)
        await until(lambda: bool(before.switched))
    (tmp_path / "policies" / f"{FIRST.digest}.safetensors").write_bytes(FIRST.weights[:-1])
    async with Node(tmp_path, FIRST) as after:
        after.follower.restore()
        await until(lambda: after.switched == [FIRST.digest])
        assert after.fetched == [FIRST.digest]


def _broken(**change: Any) -> PolicyFile:
    return FIRST._replace(**change)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (_broken(weights=FIRST.weights[:100]), "ArtefactTruncated"),
        (_broken(weights=b"\x80\x04N." + FIRST.weights), "ArtefactNotSafetensors"),
        (_broken(card=FIRST.card.replace(b'"format_version":1', b'"format_version":99')), "ArtefactTooNew"),
        (SECOND, "ArtefactDigestMismatch"),
        (ArtefactError(Refusal.NOT_FINITE, "layer0.weight"), "ArtefactNotFinite"),
    ],
)
async def test_a_bad_artefact_is_a_condition_and_an_event_by_name_and_the_present_policy_stays(
    tmp_path: Path, answer: PolicyFile | Exception, reason: str
) -> None:
    async with Node(tmp_path, answer) as node:
        node.follower.want(FIRST.digest)
        await until(lambda: node.reason == reason)
        assert (node.switched, node.facts[-1].applied) == ([], False)
        ((kind, detail),) = node.events
        assert (kind, detail["reason"]) == (EventKind.POLICY_REFUSED, reason)
        assert node.store.read(FIRST.digest) is None


async def test_bytes_that_are_another_policys_are_asked_for_again(tmp_path: Path) -> None:
    async with Node(tmp_path, SECOND, FIRST) as node:
        node.follower.want(FIRST.digest)
        await until(lambda: node.switched == [FIRST.digest])
        assert [facts.reason for facts in node.facts] == ["Fetching", "ArtefactDigestMismatch", "InForce"]


async def test_what_was_refused_is_tried_again_when_somebody_says_so_and_what_is_in_force_is_not(tmp_path: Path) -> None:
    async with Node(tmp_path, ArtefactError(Refusal.TOO_NEW, "99"), FIRST) as node:
        node.follower.want(FIRST.digest)
        await until(lambda: node.reason == "ArtefactTooNew")
        node.follower.want(FIRST.digest)
        assert node.fetched == [FIRST.digest]
        node.follower.want(FIRST.digest, again=True)
        await until(lambda: node.switched == [FIRST.digest])
        node.follower.want(FIRST.digest, again=True)
        assert (node.reason, len(node.fetched)) == ("InForce", 2)


@pytest.mark.parametrize("content", [b"\x00" * 64, b"../../etc/passwd", b"ab"])
async def test_a_damaged_note_of_what_was_wanted_does_not_keep_the_node_from_starting(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "policy").write_bytes(content)
    async with Node(tmp_path) as node:
        node.follower.restore()
        assert (node.reason, node.switched, node.fetched) == ("NotADigest", [], [])


async def test_a_control_plane_that_is_away_is_asked_again_and_complained_about_once(tmp_path: Path) -> None:
    async with Node(tmp_path, FetchError("away"), FetchError("away"), FIRST) as node:
        node.follower.want(FIRST.digest)
        await until(lambda: node.switched == [FIRST.digest])
        assert [kind for kind, _ in node.events] == [EventKind.POLICY_REFUSED, EventKind.POLICY_SWITCHED]
        assert "FetchFailed" in [facts.reason for facts in node.facts]


async def test_a_newer_wish_ends_the_older_one(tmp_path: Path) -> None:
    async with Node(tmp_path, FetchError("away"), SECOND) as node:
        node.follower.want(FIRST.digest)
        await asyncio.sleep(0)
        node.follower.want(SECOND.digest)
        await until(lambda: node.switched == [SECOND.digest])


async def test_a_controller_that_takes_no_policy_and_a_digest_that_is_none_are_said(tmp_path: Path) -> None:
    async with Node(tmp_path, FIRST) as node:
        node.refuses = True
        node.follower.want(FIRST.digest)
        await until(lambda: node.reason == "NotTaken")
        node.follower.want("../../etc/passwd")
        assert (node.reason, node.fetched) == ("NotADigest", [FIRST.digest])


def test_the_oldest_kept_policies_make_room(tmp_path: Path) -> None:
    store = PolicyStore(tmp_path, tmp_path / "wanted")
    for number in range(FILES_MAX + 2):
        store.keep(FIRST._replace(digest=f"{number:064x}"))
    assert len(list(tmp_path.glob("*.safetensors"))) == FILES_MAX


def test_an_artefact_lies_beside_the_link() -> None:
    assert policy_url("wss://h:1/agents/v1/link", "ab") == "https://h:1/api/v1/policies/ab/artefact/"
