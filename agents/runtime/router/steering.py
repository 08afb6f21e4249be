"""Where a request may go by its own words: a version in its path, endpoints its caller allows, a node an operator forces.

The header names are those of the endpoint-picker protocol, so that a proxy that speaks it can stand in front.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray

from agents.router.state import Filter
from agents.runtime.router.server import Inbound
from agents.wire.errors import ErrorCode, WireError

log = structlog.get_logger("router")

SUBSET = b"x-gateway-destination-endpoint-subset"
FORCED = b"x-helm-force-node"
_VERSION = re.compile(rb"/v2/models/[^/]+/versions/([^/]+)(?:/|\Z)")
_ENDPOINTS_MAX = 1_024  # of one subset header: a fleet's size, and a bound on the work per request

Bars = NDArray[np.int8]


class Fleet(NamedTuple):
    """What the words are held against: parallel lists, one entry per node. An unknown version is empty."""

    names: Sequence[str]
    endpoints: Sequence[bytes]
    versions: Sequence[str]


def bars_of(request: Inbound, path: bytes, fleet: Fleet, operator_of: Callable[[Inbound], str | None]) -> Bars | None:
    """The `Filter` that keeps this request from each node (0: none); `None` when it may go anywhere.

    `operator_of` names the operator who sent the request, `None` for anybody else. `WireError` when the words name
    nothing of this fleet, or force a node without being an operator's.
    """
    version = _VERSION.match(path) if b"/versions/" in path else None
    subset, forced = request.header(SUBSET), request.header(FORCED)
    if version is None and subset is None and forced is None:
        return None
    bars: Bars = np.zeros(len(fleet.names), dtype=np.int8)
    if forced is not None:
        _bar(bars, _forced_away(request, forced, fleet.names, operator_of(request)), Filter.FORCED)
    if subset is not None:
        _bar(bars, _outside(subset, fleet.endpoints), Filter.SUBSET)
    if version is not None:
        _bar(bars, _of_other_versions(version[1], fleet.versions), Filter.MODEL_VERSION)
    return bars


def together(breakers: Bars, own: Bars | None, tried: Bars | None) -> Bars:
    """All reasons in one array; what the nodes' state says goes before what the request says."""
    for more in (tried, own):
        if more is not None:
            breakers = np.where(breakers != 0, breakers, more)
    return breakers


def _bar(bars: Bars, which: list[int], reason: Filter) -> None:
    """Later calls overwrite: callers go from the last reason in the order of asking to the first."""
    bars[which] = reason


def _forced_away(request: Inbound, forced: bytes, names: Sequence[str], operator: str | None) -> list[int]:
    """Every node but the forced one; who forced it is written down."""
    if operator is None:
        raise WireError(ErrorCode.UNAUTHENTICATED, "forcing a node needs an operator's ticket or the fleet's key")
    name = forced.decode("ascii", "replace")
    if name not in names:
        raise WireError(ErrorCode.INVALID_REQUEST, "the forced node is not a node of this fleet")
    log.info("node forced", node=name, by=operator, request_id=request.request_id.decode())
    return [index for index, other in enumerate(names) if other != name]


def _outside(subset: bytes, endpoints: Sequence[bytes]) -> list[int]:
    allowed = {part.strip() for part in subset.split(b",", _ENDPOINTS_MAX)}
    return [index for index, endpoint in enumerate(endpoints) if endpoint not in allowed]


def _of_other_versions(wanted: bytes, versions: Sequence[str]) -> list[int]:
    version = wanted.decode("ascii", "replace")
    others = [index for index, known in enumerate(versions) if known and known != version]
    if len(others) == len(versions):
        raise WireError(ErrorCode.UNKNOWN_MODEL, "no node serves this version of the model")
    return others
