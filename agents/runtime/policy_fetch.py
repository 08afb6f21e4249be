"""Fetching a policy by its digest from the control plane, with the node's own credential."""

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import msgspec

from agents.artifacts.policy_file import BYTES_MAX, PolicyFile

SECONDS_MAX = 20.0  # for at most a megabyte and a half
ANSWER_BYTES_MAX = 2 * BYTES_MAX  # base64 and JSON around what an artefact may weigh

Fetch = Callable[[str], Awaitable[PolicyFile]]


class FetchError(Exception):
    """The artefact did not come; one sentence. Trying again later may help."""


class _Answer(msgspec.Struct, frozen=True):
    card: str
    weights: str


def policy_url(control_url: str, digest: str) -> str:
    """Where an artefact lies, beside the link: `ws://h:p/agents/v1/link` -> `http://h:p/api/v1/policies/DIGEST/artefact/`."""
    parts = urlsplit(control_url)
    scheme = {"ws": "http", "wss": "https"}[parts.scheme]
    return urlunsplit((scheme, parts.netloc, f"/api/v1/policies/{digest}/artefact/", "", ""))


def fetch_from(control_url: str | None, credential_file: Path | None) -> Fetch:
    """How a node with this link fetches; raises `FetchError` for whatever comes between."""

    async def fetch(digest: str) -> PolicyFile:
        if control_url is None or credential_file is None:
            raise FetchError("this node has no control plane to fetch from")
        try:
            credential = await asyncio.to_thread(credential_file.read_text, "utf-8")
            return _decode(await _body(policy_url(control_url, digest), credential.strip()), digest)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise FetchError(str(error) or type(error).__name__) from error

    return fetch


async def _body(url: str, credential: str) -> bytes:
    limit = aiohttp.ClientTimeout(total=SECONDS_MAX)
    headers = {"Authorization": f"Bearer {credential}", "Accept": "application/json"}
    async with aiohttp.ClientSession(timeout=limit) as session, session.get(url, headers=headers, allow_redirects=False) as response:
        if response.status != 200:
            raise FetchError(f"the control plane answered {response.status}")
        body = b""
        async for piece in response.content.iter_chunked(1 << 16):
            body += piece
            if len(body) > ANSWER_BYTES_MAX:
                raise FetchError(f"the answer is longer than {ANSWER_BYTES_MAX} bytes")
        return body


def _decode(body: bytes, digest: str) -> PolicyFile:
    try:
        answer = msgspec.json.decode(body, type=_Answer)
        return PolicyFile(base64.b64decode(answer.weights, validate=True), answer.card.encode(), digest)
    except (msgspec.DecodeError, binascii.Error, ValueError) as error:
        raise FetchError(f"the answer is no artefact: {error}") from error
