"""What happens in a simulated fleet, in order of time, in one kernel that calls the product's own.

Due next is the earliest of: a device's end, a request entering a node's queue, a residency delta reaching the
router, a load report, the next arrival. Ties fall in that order, so that one seed gives one run. Rings are enough
where delays are constant; the devices are few and are looked through.
"""

import numpy as np
from numpy.typing import NDArray

from agents.caches import kv
from agents.node.booking import book_prefixes, book_rows, unpin
from agents.node.meters import batch_booked, batch_completed, cost_of, load_of, predict_ms
from agents.node.queue import QueueState, close_batch, expire, push, queued_work_ns
from agents.numerics.cost import compute_ms
from agents.numerics.jit import inlined_kernel, kernel
from agents.numerics.reuse import record_user
from agents.pool.state import Counter
from agents.router import load as router_load
from agents.router.picker import FIRST_TRY, pick
from agents.router.state import NO_SLOT
from agents.router.users import put_resident
from agents.sim.device import cost_constants, gather_ms
from agents.sim.memory import meters_at, pool_at
from agents.sim.world import NOT_BUSY, RESIDENCY_DELAY_NS, Stop, World
from agents.workloads.blocks import RequestBlock
from agents.workloads.quantiles import mixed

_TIME, _BLOCK, _FULL = int(Stop.TIME), int(Stop.BLOCK), int(Stop.FULL)
_RESIDENCY_SEQ = int(Counter.RESIDENCY_SEQ)
_READY = 1
_TRIES_MAX = 3  # a request whose nodes die under it is given up at last
_NOBODY_BUSY = np.empty(0, np.uint64)
_BLOCKS, _HISTORY, _CANDIDATES, _READ, _WRITE, _ROWS = 0, 1, 2, 3, 4, 5  # rows of Booking.offsets
_NEVER_NS = np.int64(1) << 62
_JITTER_SEED, _LATE_SEED = np.uint64(0x6A69747465), np.uint64(0x6C617465)  # no stream's seeds


@inlined_kernel
def queue_at(world: World, node: int) -> QueueState:
    """One node's queue."""
    queues, most = world.queues, world.bodies[node].queue_max
    return QueueState(
        queues.size[node],
        queues.request_id[node, :most],
        queues.user_key[node, :most],
        queues.arrival_ns[node, :most],
        queues.deadline_ns[node, :most],
        queues.work_ns[node, :most],
        queues.mark[node, :most],
    )


@kernel
def queued_ms(done_ns: NDArray[np.int64], sizes: NDArray[np.int64], work_ns: NDArray[np.int64], node: int, now_ns: int) -> float:
    """Predicted work that waits on a node, and what is left of the batch on its device; few arrays, as every tick asks from Python."""
    running_ns = max(0, done_ns[node] - now_ns) if done_ns[node] != NOT_BUSY else 0
    return (queued_work_ns(sizes[node, 0], work_ns[node]) + running_ns) / 1e6


# --- requests -----------------------------------------------------------------------------


@inlined_kernel
def take_slot(world: World, block: RequestBlock, index: int, arrival_ns: int) -> int:
    """Copy one request of the block into a slot, -1 when all are taken."""
    head = world.head[0]
    if head.free == 0:
        return -1
    head.free -= 1
    slot = world.free_slots[head.free]
    request = world.requests[slot]
    request.key = block.user_keys[index]
    request.arrival_ns = arrival_ns
    request.number = head.arrived
    request.history_tokens = block.history_tokens[index]
    request.candidates = block.candidates[index]
    request.tries = 0
    first = block.block_offsets[index]
    request.blocks = block.block_offsets[index + 1] - first
    for place in range(request.blocks):
        world.hashes[slot, place] = block.block_hashes[first + place]
    first = block.history_offsets[index]
    request.history_rows = block.history_offsets[index + 1] - first
    for place in range(request.history_rows):
        world.rows[slot, place] = block.history_rows[first + place]
    history = request.history_rows
    first = block.candidate_offsets[index]
    request.candidate_rows = block.candidate_offsets[index + 1] - first
    for place in range(request.candidate_rows):
        world.rows[slot, history + place] = block.candidate_rows[first + place]
    return int(slot)


@inlined_kernel
def give_slot(world: World, slot: int) -> None:
    """The request has ended."""
    head = world.head[0]
    world.free_slots[head.free] = slot
    head.free += 1


@inlined_kernel
def arrive(world: World, block: RequestBlock, routed: NDArray[np.void], index: int, now_ns: int) -> None:
    """A request reaches the router; where it goes is noted in `routed`, or read from it in open loop."""
    head = world.head[0]
    slot = take_slot(world, block, index, now_ns)
    head.arrived += 1
    if slot < 0:
        head.refused += 1
        return
    request = world.requests[slot]
    if request.key != 0:
        tokens = world.bodies[0].block_tokens
        record_user(world.reuse, now_ns, request.key, request.history_tokens // tokens * tokens)
    if head.open_loop == 1:
        request.node, request.gap_ns, request.elsewhere = routed[index].node, routed[index].gap_ns, routed[index].elsewhere
        request.reservation, request.predicted_ms = NO_SLOT, 0.0
    else:
        _route(world, slot, now_ns, FIRST_TRY)
        routed[index].node, routed[index].gap_ns, routed[index].elsewhere = request.node, request.gap_ns, request.elsewhere
    _send(world, slot, now_ns)


@inlined_kernel
def _route(world: World, slot: int, now_ns: int, gap_ns: int) -> None:
    request = world.requests[slot]
    node, reservation, predicted, _, _, gap, elsewhere, _, _ = pick(
        world.router, now_ns, request.key, request.history_tokens, request.candidates, world.barred, gap_ns
    )
    request.node, request.reservation, request.predicted_ms = node, reservation, predicted
    request.gap_ns, request.elsewhere = gap, elsewhere


@inlined_kernel
def _send(world: World, slot: int, now_ns: int) -> None:
    """Put a routed request on its way to the node."""
    head = world.head[0]
    node = int(world.requests[slot].node)
    if node == NO_SLOT:
        head.refused += 1
        give_slot(world, slot)
        return
    kv.expect_user(pool_at(world.pool, world.pool_bounds, node), world.requests[slot].key)
    place = (head.entering_first + head.entering) % world.entering.shape[0]
    world.entering[place].at_ns = now_ns + head.hop_ns
    world.entering[place].what = slot
    head.entering += 1


@inlined_kernel
def send_again(world: World, slot: int, now_ns: int) -> None:
    """The request's node is lost: it goes to another one, once or twice."""
    request = world.requests[slot]
    router_load.complete(world.router, request.reservation, -1.0, True)
    request.tries += 1
    if request.tries >= _TRIES_MAX:
        world.head[0].refused += 1
        give_slot(world, slot)
        return
    world.head[0].rerouted += 1
    _route(world, slot, now_ns, request.gap_ns)
    _send(world, slot, now_ns)


@inlined_kernel
def enter(world: World, slot: int, now_ns: int) -> int:
    """A request reaches its node's queue. Returns the node, -1 where the request did not stay."""
    request = world.requests[slot]
    node = int(request.node)
    body = world.bodies[node]
    if body.phase != _READY:
        send_again(world, slot, now_ns)
        return -1
    pool = pool_at(world.pool, world.pool_bounds, node)
    cached = 0
    if request.key != 0:
        entry = kv.find_entry(pool, request.key)
        if entry != -1:
            cached = min(pool.entries[entry].blocks * body.block_tokens, request.history_tokens)
    work_ms = predict_ms(meters_at(world.meters, world.meters_bounds, node), cached, request.history_tokens, request.candidates)
    if push(queue_at(world, node), slot, request.key, now_ns, now_ns + body.deadline_ns, int(work_ms * 1e6)):
        return node
    _refuse(world, slot)
    return -1


@inlined_kernel
def _refuse(world: World, slot: int) -> None:
    router_load.complete(world.router, world.requests[slot].reservation, -1.0, True)
    world.head[0].refused += 1
    give_slot(world, slot)


# --- batches ------------------------------------------------------------------------------


@inlined_kernel
def serve(world: World, node: int, now_ns: int) -> None:
    """Start the next batch when the device is idle and works."""
    body = world.bodies[node]
    if world.done_ns[node] != NOT_BUSY or body.phase != _READY or world.queues.size[node, 0] == 0:
        return
    queue, slots = queue_at(world, node), world.in_flight.slot[node]
    late = expire(queue, now_ns, world.booking.late)
    for place in range(late):
        _refuse(world, world.booking.late[place])
    size = close_batch(queue, now_ns, body.batch_max, _NOBODY_BUSY, True, slots)
    if size == 0:
        return
    body.size = size
    _book(world, node, size, now_ns)
    _price(world, node, size, now_ns)
    world.done_ns[node] = now_ns if world.head[0].settling == 1 else now_ns + int(body.service_ms * 1e6)


@inlined_kernel
def _book(world: World, node: int, size: int, now_ns: int) -> None:
    """Gather the members' arrays and book prefixes and rows as the live node does."""
    body, flight, booking = world.bodies[node], world.in_flight, world.booking
    _gather(world, node, size)
    pool, meters = pool_at(world.pool, world.pool_bounds, node), meters_at(world.meters, world.meters_bounds, node)
    cost = cost_of(meters)
    tokens, cached, offsets = flight.history_tokens[node, :size], flight.cached_tokens[node, :size], booking.offsets
    book_prefixes(
        pool,
        world.policy,
        now_ns,
        body.block_tokens,
        cost.ms_per_token,
        cost.ms_per_token_squared,
        booking.user_keys[:size],
        tokens,
        booking.block_hashes,
        offsets[_BLOCKS, : size + 1],
        booking.reuse_gap_ns[:size],
        booking.resident_elsewhere[:size],
        cached,
        booking.miss_reasons[:size],
        flight.entries[node, :size],
        booking.pages[0, :0],  # nobody reads the blocks: no device does
        offsets[_READ, : size + 1],
        booking.pages[1],
        offsets[_WRITE, : size + 1],
    )
    rows, missing = book_rows(
        pool,
        world.policy,
        body.rows_per_page,
        booking.history_rows,
        offsets[_HISTORY, : size + 1],
        tokens,
        booking.candidate_rows,
        offsets[_CANDIDATES, : size + 1],
        cached,
        booking.seen,
        booking.rows,
        booking.places[0],
        booking.places[1],
        offsets[_ROWS, : size + 1],
        booking.places[2],
        booking.places[3],
    )
    body.rows, body.missing = rows, missing
    batch_booked(meters, now_ns, booking.rows[:rows], tokens, booking.reuse_gap_ns[:size], booking.miss_reasons[:size])


@inlined_kernel
def _gather(world: World, node: int, size: int) -> None:
    """The batch's arrays, requests in order."""
    flight, booking, offsets = world.in_flight, world.booking, world.booking.offsets
    for member in range(size):
        slot = flight.slot[node, member]
        request = world.requests[slot]
        booking.user_keys[member] = request.key
        booking.reuse_gap_ns[member] = request.gap_ns
        booking.resident_elsewhere[member] = request.elsewhere == 1
        flight.history_tokens[node, member] = request.history_tokens
        flight.candidates[node, member] = request.candidates
        first, history, candidates = offsets[_BLOCKS, member], offsets[_HISTORY, member], offsets[_CANDIDATES, member]
        for place in range(request.blocks):
            booking.block_hashes[first + place] = world.hashes[slot, place]
        for place in range(request.history_rows):
            booking.history_rows[history + place] = world.rows[slot, place]
        for place in range(request.candidate_rows):
            booking.candidate_rows[candidates + place] = world.rows[slot, request.history_rows + place]
        offsets[_BLOCKS, member + 1] = first + request.blocks
        offsets[_HISTORY, member + 1] = history + request.history_rows
        offsets[_CANDIDATES, member + 1] = candidates + request.candidate_rows


@inlined_kernel
def _drawn(seed: np.uint64, number: int, among: int) -> int:
    """One of so many equally likely places: by the request's number, so that every method meets the same."""
    return int(mixed(seed, np.uint64(number)) % np.uint64(among))


@inlined_kernel
def _price(world: World, node: int, size: int, now_ns: int) -> None:
    """How long the device takes; and who caused it, for the optimum: a request's own compute and its part of the rows."""
    head, body, flight = world.head[0], world.bodies[node], world.in_flight
    cost = cost_constants(body)
    scale = head.row_scale
    slower = world.jitter[_drawn(_JITTER_SEED, world.requests[flight.slot[node, 0]].number, world.jitter.shape[0])]
    body.emb_ms = gather_ms(cost, body.rows * scale, body.missing * scale, body.link_share) * slower
    second = (now_ns - head.origin_ns) // 1_000_000_000
    counted = head.settling == 0 and 0 <= second < world.service_ms.shape[1]
    total_ms = body.emb_ms
    for member in range(size):
        request = world.requests[flight.slot[node, member]]
        tokens, cached = flight.history_tokens[node, member], flight.cached_tokens[node, member]
        own_ms = compute_ms(cost, tokens, cached, flight.candidates[node, member]) * slower
        flight.compute_ms[node, member] = own_ms
        flight.queue_ms[node, member] = (now_ns - request.arrival_ns) / 1e6
        total_ms += own_ms
        if counted:
            world.service_ms[node, second, request.number & 1] += own_ms + body.emb_ms / size
    body.service_ms = total_ms


@inlined_kernel
def finish(world: World, node: int) -> None:
    """A device is done: learn and answer."""
    body, flight = world.bodies[node], world.in_flight
    now_ns, size = world.done_ns[node], body.size
    world.done_ns[node] = NOT_BUSY
    unpin(pool_at(world.pool, world.pool_bounds, node), flight.entries[node, :size])
    batch_completed(
        meters_at(world.meters, world.meters_bounds, node),
        now_ns,
        flight.history_tokens[node, :size],
        flight.cached_tokens[node, :size],
        flight.candidates[node, :size],
        body.rows,
        body.missing,
        flight.queue_ms[node, :size],
        body.emb_ms,
        0.0,
        flight.compute_ms[node, :size],
        body.service_ms,
    )
    for member in range(size):
        _answer(world, node, member, now_ns + world.head[0].hop_ns)
    _publish_later(world, node, now_ns)


@inlined_kernel
def _answer(world: World, node: int, member: int, done_ns: int) -> None:
    head = world.head[0]
    slot = world.in_flight.slot[node, member]
    request = world.requests[slot]
    late_ns = world.late_ns[_drawn(_LATE_SEED, request.number, world.late_ns.shape[0])]
    latency_ms = (done_ns + late_ns - request.arrival_ns) / 1e6
    # a settling fleet answers at once, which would teach the router that its predictions are far too high
    router_load.complete(world.router, request.reservation, -1.0 if head.settling == 1 else latency_ms, False)
    answer = world.answers[head.answers]
    answer.number, answer.arrival_ns, answer.node = request.number, request.arrival_ns, node
    answer.latency_ms, answer.predicted_ms = latency_ms, request.predicted_ms
    answer.cached = world.in_flight.cached_tokens[node, member]
    head.answers += 1
    give_slot(world, slot)


# --- what the router hears ----------------------------------------------------------------


@inlined_kernel
def _publish_later(world: World, node: int, now_ns: int) -> None:
    """A residency delta leaves the node; one already on its way will carry this batch's changes too, if the ring is full."""
    head = world.head[0]
    if head.publishing == world.publishing.shape[0]:
        return
    place = (head.publishing_first + head.publishing) % world.publishing.shape[0]
    world.publishing[place].at_ns = now_ns + RESIDENCY_DELAY_NS
    world.publishing[place].what = node
    head.publishing += 1


@inlined_kernel
def publish(world: World, node: int) -> None:
    """The router learns what the node holds now; a reader that fell behind the log's ring gets what is left of it."""
    body, pool = world.bodies[node], pool_at(world.pool, world.pool_bounds, node)
    newest, ring = pool.counters[_RESIDENCY_SEQ], pool.residency.shape[0]
    for sequence in range(max(body.published, newest - ring) + 1, newest + 1):
        change = pool.residency[sequence % ring]
        put_resident(world.router, node, change.key, change.tokens)
    body.published = newest


@inlined_kernel
def report(world: World, node: int, now_ns: int) -> None:
    """The node's load reaches the router."""
    body = world.bodies[node]
    if body.phase != _READY:
        return
    pool, meters = pool_at(world.pool, world.pool_bounds, node), meters_at(world.meters, world.meters_bounds, node)
    waiting = world.queues.size[node, 0]
    work_ms = queued_ms(world.done_ns, world.queues.size, world.queues.work_ns, node, now_ns)
    load = load_of(meters, pool, body.block_tokens, body.phase, waiting, work_ms)
    router_load.hear(world.router, node, now_ns, load)


# --- the loop -----------------------------------------------------------------------------


@inlined_kernel
def _next_done(world: World) -> int:
    """Node whose device ends first; the lower number among equals."""
    first = 0
    for node in range(1, world.done_ns.shape[0]):
        if world.done_ns[node] < world.done_ns[first]:
            first = node
    return first


@kernel
def run_until(world: World, block: RequestBlock, routed: NDArray[np.void], cursor: int, until_ns: int) -> tuple[int, int]:
    """Let everything happen that is due before `until_ns`, from the block's request `cursor` on.

    Returns (why it stopped: a Stop, the next request of the block). Ends: every pass takes away one event, and events
    before `until_ns` are finitely many.
    """
    head = world.head[0]
    requests = block.at_ns.shape[0]
    node = _next_done(world)
    while True:
        done_ns = world.done_ns[node]
        entering_ns = world.entering[head.entering_first].at_ns if head.entering > 0 else _NEVER_NS
        publishing_ns = world.publishing[head.publishing_first].at_ns if head.publishing > 0 else _NEVER_NS
        arrival_ns = head.origin_ns + block.at_ns[cursor] if cursor < requests else _NEVER_NS
        now_ns = min(done_ns, entering_ns, publishing_ns, head.report_ns, arrival_ns)
        if requests > 0 and cursor == requests:
            return _BLOCK, cursor  # the next block's first arrival may be due before anything else
        if now_ns >= until_ns:
            head.now_ns = until_ns
            return _TIME, cursor
        if head.answers + world.in_flight.slot.shape[1] > world.answers.shape[0]:
            return _FULL, cursor
        head.now_ns = now_ns
        server = -1  # node that may start a batch now
        if now_ns == done_ns:
            finish(world, node)
            server = node
        elif now_ns == entering_ns:
            slot = world.entering[head.entering_first].what
            head.entering_first = (head.entering_first + 1) % world.entering.shape[0]
            head.entering -= 1
            server = enter(world, slot, now_ns)
        elif now_ns == publishing_ns:
            told = world.publishing[head.publishing_first].what
            head.publishing_first = (head.publishing_first + 1) % world.publishing.shape[0]
            head.publishing -= 1
            publish(world, told)
        elif now_ns == head.report_ns:
            report(world, head.report_node, now_ns)
            head.report_node = (head.report_node + 1) % world.bodies.shape[0]
            head.report_ns += head.report_period_ns
        else:
            arrive(world, block, routed, cursor, now_ns)
            cursor += 1
        if server != -1:
            serve(world, server, now_ns)
            node = _next_done(world)
