"""Devices by name. The one place that knows them all."""

import torch

from agents.profiles import DeviceName, Profile
from agents.runtime.device import cpu, cuda
from agents.runtime.device.base import element_type
from agents.runtime.device.executor import Parts, TorchExecutor
from agents.runtime.device.link import Link
from agents.runtime.device.store import Store
from agents.runtime.device.table import HostTable
from agents.runtime.model import HstuRanker, Weights, kv_floats_per_token


def refuse_what_cannot_run(device: DeviceName, profile: Profile) -> None:
    """`ValueError` when the device or HELM's model cannot be had for this profile; asked before anything large is made."""
    if device == "cuda":
        if profile.paced:
            raise ValueError(f"profile {profile.name}: paced is for emulated devices, a cuda device takes the time it takes")
        cuda.refuse_without_cuda()
    made = kv_floats_per_token(profile.model) * element_type(profile).itemsize
    if made != profile.kv_token_bytes:
        raise ValueError(f"profile {profile.name}: kv_token_bytes is {profile.kv_token_bytes}, its model makes {made}")


def make_store(device: DeviceName, profile: Profile, table: HostTable) -> Store:
    """Arena, table and link of a device. `ValueError` for what does not fit, `DeviceOutOfMemory` for what is too large."""
    if device == "cuda":
        cuda.refuse_without_cuda()
        return cuda.CudaStore(profile, cuda.pinned_table(table))
    return cpu.CpuStore(profile, table, Link(profile.link_bytes_per_second, profile.refill_bytes_per_second))


def make_executor(device: DeviceName, profile: Profile, weights: Weights, table: HostTable) -> TorchExecutor:
    """A store with HELM's ranker; errors as of `make_store`."""
    if device == "cpu":
        torch.set_num_threads(1)  # the nodes of a machine share its cores, a second thread would only steal
    store = make_store(device, profile, table)
    return TorchExecutor(profile, store, make_ranker(store, profile, weights))


def make_parts(executor: TorchExecutor, profile: Profile, weights: Weights, table: HostTable) -> Parts:
    """Another version for an executor that is running; nothing of it is touched."""
    source = table if executor.emulated else cuda.pinned_table(table)
    return Parts(make_ranker(executor.store, profile, weights), source)


def make_ranker(store: Store, profile: Profile, weights: Weights) -> HstuRanker:
    """HELM's ranker where a store has its arena, in the type of its elements."""
    if store.device.type == "cpu":
        return HstuRanker(profile.model, weights, store.device, element_type(profile))
    return HstuRanker(profile.model, weights, store.device, element_type(profile), cuda.CHUNK_TOKENS)
