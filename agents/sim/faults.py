"""What goes wrong in a simulated fleet, at a time and for a while.

node-loss     the node is gone: what it held or was doing is tried elsewhere; it comes back empty
cold-start    the node's caches are emptied while it serves on
slow-link     the link to host memory gives a third of what it should
version-flip  a new model version: every prefix on every node is void
"""

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from agents.numerics.jit import kernel
from agents.sim.events import send_again
from agents.sim.world import NOT_BUSY, World

if TYPE_CHECKING:
    from agents.sim.fleet import SimulatedFleet

SLOW_LINK_SHARE = 1.0 / 3.0


class FaultKind(StrEnum):
    """Names as on the command line."""

    NODE_LOSS = "node-loss"
    COLD_START = "cold-start"
    SLOW_LINK = "slow-link"
    VERSION_FLIP = "version-flip"


class Fault(NamedTuple):
    """One thing that goes wrong; `node` is ignored where the whole fleet is meant."""

    kind: FaultKind
    at_seconds: float
    for_seconds: float = 0.0
    node: int = 0


def parse_fault(text: str) -> Fault:
    """`KIND@SECONDS[+SECONDS][:NODE]`, for instance `node-loss@60+30:2`; `ValueError` says what is wrong."""
    kind, _, rest = text.partition("@")
    when, _, node = rest.partition(":")
    at, _, lasting = when.partition("+")
    try:
        fault = Fault(FaultKind(kind), float(at), float(lasting or 0.0), int(node or 0))
    except ValueError as error:
        known = ", ".join(FaultKind)
        raise ValueError(f"fault: {text!r} is not KIND@SECONDS[+SECONDS][:NODE] with KIND one of {known}") from error
    if not (0.0 <= fault.at_seconds < 1e9 and 0.0 <= fault.for_seconds < 1e9 and fault.node >= 0):
        raise ValueError(f"fault: {text!r} has a negative or endless time, or a negative node")
    return fault


def begin(fleet: "SimulatedFleet", now_ns: int, fault: Fault) -> None:
    """The fault sets in."""
    if fault.kind is FaultKind.NODE_LOSS:
        fleet.router.node_gone(fault.node)
        fleet.world.bodies[fault.node]["phase"] = 0
        abandon(fleet.world, fault.node, now_ns)
    elif fault.kind is FaultKind.COLD_START:
        _forget_residency(fleet, fault.node)
        fleet.renew(fault.node)
    elif fault.kind is FaultKind.SLOW_LINK:
        fleet.set_link(fault.node, SLOW_LINK_SHARE)
    else:
        for node in fleet.nodes:
            node.version_flip(now_ns)


def end(fleet: "SimulatedFleet", now_ns: int, fault: Fault) -> None:
    """The fault is over: a lost node is back and empty, a slow link as before."""
    if fault.kind is FaultKind.NODE_LOSS:
        fleet.renew(fault.node)
        fleet.world.bodies[fault.node]["phase"] = 1
    elif fault.kind is FaultKind.SLOW_LINK:
        fleet.set_link(fault.node, 1.0)


def _forget_residency(fleet: "SimulatedFleet", node: int) -> None:
    """The router learns at once that the node holds nothing, and goes on sending to it."""
    phase = int(fleet.router.state.nodes[node]["phase"])
    fleet.router.node_gone(node)
    fleet.router.state.nodes[node]["phase"] = phase


@kernel
def abandon(world: World, node: int, now_ns: int) -> None:
    """Everything queued or on the device of a lost node is tried elsewhere."""
    if world.done_ns[node] != NOT_BUSY:
        world.done_ns[node] = NOT_BUSY
        for member in range(world.bodies[node].size):
            send_again(world, world.in_flight.slot[node, member], now_ns)
    waiting = world.queues.size[node, 0]
    world.queues.size[node, 0] = 0
    for place in range(waiting):
        send_again(world, world.queues.request_id[node, place], now_ns)
