"""Runs inside the control plane's own Django, in one process: its start is what costs. Prints the what-if's id."""

from typing import Any

from django.core.management import call_command
from django.utils import timezone

call_command("migrate", verbosity=0)

from apps.accounts.models import User  # noqa: E402
from apps.policies.models import PolicyVersion, TrainingRun  # noqa: E402
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
helm = PolicyVersion.objects.get(name="helm")
tuned = PolicyVersion.objects.create(
    digest="ab" * 32,
    name="helm",
    number=2,
    variant="helm",
    source="tuned",
    state="rejected",
    state_reason="P99 +4.0% against its parent over 6 runs",
    parent=helm,
    evaluation={
        "verdict": "rejected",
        "reason": "P99 +4.0% against its parent over 6 runs",
        "against": {
            "parent": {"mean": 0.04, "low": 0.02, "high": 0.06, "pairs": 6},
            "b5": {"mean": -0.031, "low": -0.05, "high": -0.01, "pairs": 6},
            "b7": {"mean": -0.002, "low": -0.02, "high": 0.02, "pairs": 6},
        },
        "cells": {
            "taobao/steady": {name: {"latency_ms_p99": 120.0} for name in ("candidate", "parent", "b5", "b7")},
            "taobao/burst": {name: {"latency_ms_p99": 180.0} for name in ("candidate", "parent", "b5", "b7")},
        },
        "seeds": [7000, 7001],
        "seconds": 150.0,
    },
    card=helm.card,
    weights=helm.weights,
    created_by="olga",
    created_at=now,
)
TrainingRun.objects.create(
    status="succeeded",
    parent=helm,
    result=tuned,
    options={
        "steps": 6000,
        "streams": 8,
        "journals": 0,
        "episode_seconds": 300.0,
        "seed": 1,
        "evaluation_seeds": 2,
        "evaluation_seconds": 150.0,
    },
    curve=[
        {"steps": 464, "reward_mean": -0.1, "seconds": 9.0, "loss": None},
        {"steps": 928, "reward_mean": 0.1, "seconds": 18.0, "loss": 0.02},
    ],
    created_by="olga",
    created_at=now,
    started_at=now,
    finished_at=now,
    progress=1.0,
    stage="succeeded",
)
print(finished.uid)
