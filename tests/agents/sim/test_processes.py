"""Worker processes end with whoever started them, however that ends."""

import signal
import subprocess
import sys

import psutil
import pytest

from tests.patience import until

STARTER = """
import signal, sys, time
from agents.sim.processes import simulating_processes

def leave(*_):
    raise SystemExit(143)

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs, and what they start, ignore it
    with simulating_processes(2) as pool:
        futures = [pool.submit(time.sleep, 600) for _ in range(4)]
        print("started", flush=True)
        while not futures[0].done():
            time.sleep(0.05)  # a signal that comes just before an endless wait is heard after it
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_its_starter(number: signal.Signals) -> None:
    starter = subprocess.Popen([sys.executable, "-c", STARTER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    assert starter.stdout is not None
    starter.stdout.readline()
    process = psutil.Process(starter.pid)
    until("workers", lambda: len(process.children(recursive=True)) >= 2, 30.0)
    children = process.children(recursive=True)
    starter.send_signal(number)
    assert starter.wait(20.0) != 0
    until("the workers' end", lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children), 20.0)
    starter.stdout.close()
