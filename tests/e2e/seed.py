"""Runs inside the control plane's own Django, in one process: its start is what costs. Prints the what-if's id."""

from typing import Any

from django.core.management import call_command
from django.utils import timezone

call_command("migrate", verbosity=0)

from apps.accounts.models import User  # noqa: E402
from apps.whatif.models import WhatIf  # noqa: E402

for name, role in (("olga", "operator"), ("vera", "viewer"), ("anna", "admin")):
    User.objects.create_user(name, password="correct horse battery", role=role)


def simulated(label: str, method: str, latency_ms_p99: float, emb_ratio: float) -> dict[str, Any]:
    """A run as the simulator reports it."""
    return {
        "label": label,
        "method": method,
        "cell": {
            "latency_ms_mean": 12.0,
            "latency_ms_p50": 10.0,
            "latency_ms_p99": latency_ms_p99,
            "slo_ms": 60.0,
            "slo_ratio": 0.99,
            "emb_hit_ratio": 0.8,
            "kv_hit_ratio": 0.6,
            "throughput_per_second": 40.0,
            "moves": 3,
        },
        "series": {
            "at_seconds": [0.0, 10.0, 20.0],
            "latency_ms_p99": [latency_ms_p99, latency_ms_p99, None],
            "emb_ratio": [emb_ratio] * 3,
            "emb_hit_ratio": [0.8] * 3,
            "kv_hit_ratio": [0.6] * 3,
        },
    }


now = timezone.now()
finished = WhatIf.objects.create(
    status="succeeded",
    scenario={
        "workload": "burst",
        "nodes": 2,
        "static_ratios": [0.3, 0.6],
        "method": "b5",
        "seed": 7,
        "duration_seconds": 30,
        "rate_per_second": None,
        "profile": "cpu-demo",
        "router": "joint",
    },
    created_by="olga",
    created_at=now,
    started_at=now,
    finished_at=now,
    progress=1.0,
    stage="succeeded",
    result={
        "runs": [
            simulated("static 0.30", "static-0.30", 80.0, 0.3),
            simulated("static 0.60", "static-0.60", 70.0, 0.6),
            simulated("controller", "b5", 56.0, 0.45),
        ]
    },
)
print(finished.uid)
