"""What may be asked for, and what a small machine gets."""

from pathlib import Path

import pytest

from helmctl.supervisor.plan import GIB, Plan, dial_host, fit_to_machine
from helmctl.supervisor.refusal import Refusal


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"nodes": 0}, "--nodes must be 1 to 64, not 0."),
        ({"nodes": 65}, "--nodes must be 1 to 64, not 65."),
        ({"router_port": 0}, "--router-port must be 1 to 65535, not 0."),
        ({"web_port": 70000}, "--web-port must be 1 to 65535, not 70000."),
        ({"node_port": 65535, "nodes": 2}, "--node-port 65535 leaves no room for 2 nodes below 65536."),
        ({"router_port": 8792}, "--web-port, --router-port and the nodes' ports from --node-port must not meet."),
        ({"host": "::"}, "--host must be an IPv4 address or a name, not '::'."),
        ({"host": ""}, "--host must be an IPv4 address or a name, not ''."),
    ],
)
def test_what_cannot_be_started_is_refused_by_name(options: dict[str, object], line: str) -> None:
    with pytest.raises(Refusal) as refused:
        Plan(**options)  # type: ignore[arg-type]
    assert str(refused.value) == line


def test_nodes_have_names_and_ports_in_order() -> None:
    plan = Plan(nodes=3, node_port=9000)
    assert plan.node_names == ["node-0", "node-1", "node-2"]
    assert list(plan.node_ports) == [9000, 9001, 9002]


@pytest.mark.parametrize(("workload", "is_log"), [("demo", False), ("none", False), ("a.parquet", True), ("b.csv", True), ("c.npz", True)])
def test_a_workload_that_is_a_file_is_replayed(workload: str, is_log: bool) -> None:
    assert Plan(workload=workload).trace == (Path.cwd() / workload if is_log else None)


def test_a_listener_on_every_address_is_dialled_on_the_loopback() -> None:
    assert dial_host("0.0.0.0") == "127.0.0.1"
    assert dial_host("10.1.2.3") == "10.1.2.3"
    assert dial_host("helm.example") == "helm.example"


@pytest.mark.parametrize(("cores", "memory_gib", "nodes"), [(2, 8, 4), (1, 8, 2), (2, 3, 2), (64, 256, 4)])
def test_a_small_machine_gets_two_nodes_and_is_told(cores: int, memory_gib: int, nodes: int) -> None:
    plan, said = fit_to_machine(Plan(), cores=cores, memory_bytes=memory_gib * GIB)
    assert plan.nodes == nodes
    assert (said is None) is (nodes == 4)


def test_a_small_machine_is_told_what_was_seen_and_how_to_insist() -> None:
    _, said = fit_to_machine(Plan(), cores=1, memory_bytes=GIB)
    assert said == "Small machine (1 core, 1.0 GiB): starting 2 nodes; NODES=4 insists."
