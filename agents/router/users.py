"""Who is resident where, and when each user was last seen: one bounded hash table with lists of copies.

Linear probing with backward-shift deletion, so that years of users coming and going leave no
tombstones. A user stands in the table while resident anywhere or recently seen; when the table is
full the oldest of a small sample gives way, those without a copy first. A node fills no more of it
than its share: what it tells of beyond is left out, so that one node cannot push out what others hold.
"""

import numpy as np
from numpy.typing import NDArray

from agents.numerics.jit import kernel
from agents.router.hashing import mix
from agents.router.state import NEVER, NO_SLOT, RouterState

_EMPTY = np.uint64(0)
_SAMPLE = 16  # occupied slots looked at for a victim: near enough to the oldest, and bounded


@kernel
def find_user(state: RouterState, key: np.uint64) -> int:
    """Slot of the user, or `NO_SLOT`."""
    users = state.users
    mask = users.shape[0] - 1
    slot = int(np.int64(mix(key) & np.uint64(mask)))
    while users[slot].key != _EMPTY:
        if users[slot].key == key:
            return slot
        slot = (slot + 1) & mask
    return NO_SLOT


@kernel
def _free_copies(state: RouterState, slot: int) -> None:
    totals = state.totals[0]
    copy = int(state.users[slot].head)
    while copy != NO_SLOT:
        following = int(state.copies[copy].next)
        node = state.nodes[state.copies[copy].node]
        node.resident_users -= 1
        node.resident_tokens -= state.copies[copy].tokens
        state.copies[copy].next = totals.copy_free
        totals.copy_free = copy
        totals.copies -= 1
        copy = following
    state.users[slot].head = NO_SLOT


@kernel
def forget_user(state: RouterState, slot: int) -> None:
    """Drop a user and its copies; later members of the probe chain move up."""
    _free_copies(state, slot)
    users = state.users
    mask = users.shape[0] - 1
    hole = slot
    probe = (slot + 1) & mask
    while users[probe].key != _EMPTY:
        home = int(np.int64(mix(users[probe].key) & np.uint64(mask)))
        if ((probe - home) & mask) >= ((probe - hole) & mask):
            users[hole] = users[probe]
            hole = probe
        probe = (probe + 1) & mask
    users[hole].key = _EMPTY
    users[hole].head = NO_SLOT
    state.totals[0].users -= 1


@kernel
def _make_room(state: RouterState) -> None:
    users = state.users
    totals = state.totals[0]
    mask = users.shape[0] - 1
    slot = totals.hand
    victim = NO_SLOT
    looked = 0
    while looked < _SAMPLE:
        slot = (slot + 1) & mask
        if users[slot].key == _EMPTY:
            continue
        looked += 1
        if victim == NO_SLOT:
            victim = slot
            continue
        bare, victim_bare = users[slot].head == NO_SLOT, users[victim].head == NO_SLOT
        if (bare and not victim_bare) or (bare == victim_bare and users[slot].seen_ns < users[victim].seen_ns):
            victim = slot
    totals.hand = slot
    if users[victim].head != NO_SLOT:
        totals.users_dropped += 1
    forget_user(state, victim)


@kernel
def find_or_add_user(state: RouterState, key: np.uint64) -> int:
    """Slot of the user, added as never seen if new; a full table makes room first."""
    slot = find_user(state, key)
    if slot != NO_SLOT:
        return slot
    if state.totals[0].users >= state.settings[0].users_max:
        _make_room(state)
    users = state.users
    mask = users.shape[0] - 1
    slot = int(np.int64(mix(key) & np.uint64(mask)))
    while users[slot].key != _EMPTY:
        slot = (slot + 1) & mask
    users[slot].key = key
    users[slot].seen_ns = NEVER
    users[slot].head = NO_SLOT
    users[slot].last_node = NO_SLOT
    state.totals[0].users += 1
    return slot


@kernel
def _remove_copy(state: RouterState, slot: int, node: int) -> None:
    previous = NO_SLOT
    copy = int(state.users[slot].head)
    while copy != NO_SLOT and state.copies[copy].node != node:
        previous = copy
        copy = int(state.copies[copy].next)
    if copy == NO_SLOT:
        return
    if previous == NO_SLOT:
        state.users[slot].head = state.copies[copy].next
    else:
        state.copies[previous].next = state.copies[copy].next
    state.nodes[node].resident_users -= 1
    state.nodes[node].resident_tokens -= state.copies[copy].tokens
    state.copies[copy].next = state.totals[0].copy_free
    state.totals[0].copy_free = copy
    state.totals[0].copies -= 1


@kernel
def _put_copy(state: RouterState, slot: int, node: int, tokens: int) -> None:
    copy = int(state.users[slot].head)
    while copy != NO_SLOT and state.copies[copy].node != node:
        copy = int(state.copies[copy].next)
    if copy == NO_SLOT:
        copy = int(state.totals[0].copy_free)
        if copy == NO_SLOT:
            state.totals[0].copies_dropped += 1
            return
        state.totals[0].copy_free = state.copies[copy].next
        state.copies[copy].next = state.users[slot].head
        state.copies[copy].node = node
        state.copies[copy].tokens = 0
        state.users[slot].head = copy
        state.totals[0].copies += 1
        state.nodes[node].resident_users += 1
    state.nodes[node].resident_tokens += tokens - state.copies[copy].tokens
    state.copies[copy].tokens = tokens


@kernel
def _has_room(state: RouterState, node: int, key: np.uint64) -> bool:
    """Whether this user may be resident on the node: within its share, or there already."""
    if state.nodes[node].resident_users < state.settings[0].resident_users_max:
        return True
    slot = find_user(state, key)
    if slot == NO_SLOT:
        return False
    copy = int(state.users[slot].head)
    while copy != NO_SLOT and state.copies[copy].node != node:
        copy = int(state.copies[copy].next)
    return copy != NO_SLOT


@kernel
def set_resident(state: RouterState, node: int, keys: NDArray[np.uint64], tokens: NDArray[np.int64]) -> None:
    """The node holds these prefix lengths now."""
    for i in range(keys.shape[0]):
        put_resident(state, node, keys[i], tokens[i])


@kernel
def put_resident(state: RouterState, node: int, key: np.uint64, tokens: int) -> None:
    """The node holds a prefix of so many tokens of this user; zero means that it is gone."""
    if key == _EMPTY:
        return
    if tokens > 0:
        if not _has_room(state, node, key):
            state.nodes[node].users_refused += 1
            return
        _put_copy(state, find_or_add_user(state, key), node, tokens)
        return
    slot = find_user(state, key)
    if slot == NO_SLOT:
        return
    _remove_copy(state, slot, node)
    if state.users[slot].head == NO_SLOT and state.users[slot].seen_ns == NEVER:
        forget_user(state, slot)


@kernel
def mark_seen(state: RouterState, keys: NDArray[np.uint64], times_ns: NDArray[np.int64]) -> None:
    """These users were seen at these times, if not later."""
    for i in range(keys.shape[0]):
        if keys[i] == _EMPTY:
            continue
        slot = find_or_add_user(state, keys[i])
        state.users[slot].seen_ns = max(state.users[slot].seen_ns, times_ns[i])


@kernel
def clear_resident(state: RouterState, node: int) -> None:
    """The node holds nothing any more, or nothing that is known."""
    users = state.users
    slot = 0
    while slot < users.shape[0]:
        if users[slot].key != _EMPTY and users[slot].head != NO_SLOT:
            _remove_copy(state, slot, node)
            if users[slot].head == NO_SLOT and users[slot].seen_ns == NEVER:
                forget_user(state, slot)
                continue  # the chain moved up: this slot may hold another user
        slot += 1


@kernel
def forget_old_users(state: RouterState, now_ns: int, slots: int) -> int:
    """Sweep the next `slots` slots; users not seen within the memory and resident nowhere go. Returns how many went."""
    users = state.users
    totals = state.totals[0]
    mask = users.shape[0] - 1
    oldest_ns = now_ns - state.settings[0].memory_ns
    gone = 0
    slot = totals.hand & mask
    for _ in range(slots):
        while users[slot].key != _EMPTY and users[slot].head == NO_SLOT and users[slot].seen_ns < oldest_ns:
            forget_user(state, slot)
            gone += 1
        slot = (slot + 1) & mask
    totals.hand = slot
    return gone


@kernel
def resident_tokens(state: RouterState, key: np.uint64, out: NDArray[np.int64]) -> None:
    """Cached prefix tokens of one user on every node, written to `out[N]`."""
    out[:] = 0
    slot = find_user(state, key)
    if slot == NO_SLOT:
        return
    copy = int(state.users[slot].head)
    while copy != NO_SLOT:
        out[state.copies[copy].node] = state.copies[copy].tokens
        copy = int(state.copies[copy].next)
