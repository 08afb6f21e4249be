"""What each suite asks: cells, methods, seeds, and how the answers become rows.

    paper        three catalogues x three regimes x two loads x two admissions x methods
    routing      the same cells under every router at one static split
    sensitivity  each cost constant halved and doubled: where does the winner change
    ablation     the controller's layers, one by one
    placement    unequal splits, steered to by the router alone, against equal ones
    capacity     six named cells on 32 nodes: how many more arrivals each method and each router carries within the SLO

Statics run on two seeds, methods on all. S0 is the best static of a catalogue and load over the three regimes, S1 the best of a
cell, steady-tuned the best of its steady cell: all three by mean P99 over the statics' seeds, which flatters S0 and S1
where those seeds are tested too. Every method of a cell meets the same arrivals.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from agents.sim.evaluation.jobs import Job
from agents.sim.evaluation.loads import HARDWARE, NODES, SECONDS, rate_per_node
from agents.sim.evaluation.optimum import GRID
from agents.sim.evaluation.schedules import LEADS_WINDOWS, LEANS, schedules_of
from agents.sim.scenario import Scenario, profiles_of

CATALOGUES = ("taobao", "amazon-books", "amazon-video-games")
REGIMES = ("steady", "trend", "burst")
ADMISSIONS = ("none", "shipped")
METHODS = ("b5", "b5+burst", "b7", "b7+burst", "b9", "b10", "b10+burst", "b11", "paper", "helm")
ROUTERS = ("round-robin", "least-loaded", "consistent-hash", "kv-affinity", "joint")
ABLATION = ("helm-base", "helm-residual", "helm-recovery", "helm", "helm-on-hold", "helm-on-b7", "paper")
CAPACITY_NODES, CAPACITY_REGIMES = 32, ("trend", "burst")
CAPACITY_FACTORS = (0.8, 0.9, 1.0, 1.1, 1.2, 1.35)  # on the arrivals of a normal load
QUICK_METHODS = ("b5", "b7", "helm", "helm-base", "helm-on-hold")
# share of a typical request's 4.5 ms that each constant makes, on an A100 at the demo's hit ratios
COST_CONSTANTS = {
    "ms_fixed": 0.09,
    "ms_per_missing_row": 0.48,
    "ms_per_token": 0.09,
    "ms_per_token_squared": 0.32,
    "kv_hit_compute_ratio": 0.15,
    "ms_per_hit_row": 0.02,
}
STATIC_SEEDS = 2
STATIC_RATIOS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6)  # where the best ones lie; the optimum is looked for at all 17
SETTLED_RATIO = 0.5  # the static split behind every router, of the routing and capacity suites


class Cell(NamedTuple):
    """What all methods of a comparison have in common."""

    catalogue: str
    regime: str
    load: str
    admission: str
    nodes: int = NODES
    hardware: str = HARDWARE

    def scenario(self, method: str, seed: int, *, router: str = "joint", rent: bool = True, factor: float = 1.0) -> Scenario:
        """The run of one method and seed; `factor` on the arrivals."""
        return Scenario(
            profile=self.hardware,
            workload=f"{self.catalogue}/{self.regime}",
            nodes=self.nodes,
            method=method,
            router=router,
            admission=self.admission,
            seed=seed,
            duration_seconds=SECONDS,
            rate_per_second=factor * rate_per_node(self.catalogue, self.regime, self.load) * self.nodes,
            rent=rent,
        )


class Plan(NamedTuple):
    """Size of a suite."""

    cells: tuple[Cell, ...]
    methods: tuple[str, ...]
    ratios: tuple[float, ...]
    seeds: tuple[int, ...]
    static_seeds: tuple[int, ...]
    swept_cells: tuple[Cell, ...]  # with an optimum and S3
    swept_seeds: tuple[int, ...]  # of the statics' seeds
    quick: bool

    @property
    def grid(self) -> NDArray[np.float64]:
        """Ratios of a sweep, increasing and evenly spaced."""
        return GRID[2:15:2] if self.quick else GRID


def static_name(ratio: float) -> str:
    """Name of a static method."""
    return f"static-{ratio:.2f}"


def plan_of(
    suite: str, *, quick: bool = False, seeds: int = 5, catalogues: Sequence[str] = CATALOGUES, methods: Sequence[str] = ()
) -> Plan:
    """The suite's size; `--quick` has fewer cells, methods, ratios and seeds. `ValueError` for an unknown suite."""
    if suite not in ("paper", "ablation"):
        raise ValueError(f"suite: unknown {suite!r} here, choose paper or ablation")
    chosen = tuple(methods) or (METHODS if suite == "paper" else ABLATION)
    if quick:
        return _quick_plan(catalogues[0], tuple(methods) or tuple(method for method in chosen if method in QUICK_METHODS))
    cells = tuple(
        Cell(catalogue, regime, load, admission)
        for catalogue in catalogues
        for regime in REGIMES
        for load in ("normal", "high")
        for admission in ADMISSIONS
    )
    many = tuple(range(1, seeds + 1))
    swept = tuple(cell for cell in cells if cell.load == "normal" and cell.admission == "none")
    return Plan(cells, chosen, STATIC_RATIOS, many, many[:STATIC_SEEDS], swept, many[:1], False)


def _quick_plan(catalogue: str, methods: tuple[str, ...]) -> Plan:
    cells = [Cell(catalogue, regime, "normal", admission) for regime in REGIMES for admission in ADMISSIONS]
    cells += [Cell(catalogue, regime, "high", "none") for regime in ("trend", "burst")]
    swept = tuple(cell for cell in cells if cell.load == "normal" and cell.admission == "none")
    return Plan(tuple(cells), methods, tuple(float(ratio) for ratio in GRID[2:15:2].round(2)), (1,), (1,), swept, (1,), True)


def first_jobs(plan: Plan) -> list[Job]:
    """Statics, methods, and the sweeps behind the optimum and S3."""
    jobs = [Job(cell.scenario(static_name(ratio), seed)) for cell in plan.cells for seed in plan.static_seeds for ratio in plan.ratios]
    jobs += [Job(cell.scenario(method, seed)) for cell in plan.cells for seed in plan.seeds for method in methods_in(plan, cell)]
    return jobs + [job for cell in plan.swept_cells for seed in plan.swept_seeds for job in sweep_jobs(plan, cell, seed)]


def sweep_jobs(plan: Plan, cell: Cell, seed: int) -> list[Job]:
    """A static split at every ratio of the plan's grid."""
    return [Job(cell.scenario(static_name(ratio), seed)) for ratio in plan.grid]


def swept_service_ms(plan: Plan, cell: Cell, seed: int, answers: dict[str, dict[str, Any]]) -> NDArray[np.float64]:
    """Device time [G, seconds, 2] of the fleet at every ratio of the plan's grid [G]."""
    return np.array([answers[job.key]["service_ms"] for job in sweep_jobs(plan, cell, seed)])


def methods_in(plan: Plan, cell: Cell) -> tuple[str, ...]:
    """The plan's methods that differ from others in this cell: a burst layer does nothing where no burst comes."""
    return tuple(method for method in plan.methods if cell.regime == "burst" or "+burst" not in method)


def runs_in(plan: Plan) -> int:
    """How many runs a plan comes to at most: what a suite's time follows from."""
    statics = len(plan.cells) * len(plan.static_seeds) * len(plan.ratios)
    methods = sum(len(methods_in(plan, cell)) for cell in plan.cells) * len(plan.seeds)
    named = len(plan.cells) * 3 * (len(plan.seeds) - len(plan.static_seeds))
    swept = len(plan.swept_cells) * len(plan.swept_seeds) * (len(plan.grid) - len(plan.ratios) + len(LEANS) * len(LEADS_WINDOWS))
    return statics + methods + named + swept


def second_jobs(plan: Plan, bests: dict[str, float], answers: dict[str, dict[str, Any]]) -> list[Job]:
    """S0, S1 and steady-tuned on the seeds that the grid did not run, and the candidates for S3."""
    jobs = [
        Job(cell.scenario(static_name(bests[_name(cell, which)]), seed))
        for cell in plan.cells
        for seed in plan.seeds
        for which in ("s0", "s1", "steady-tuned")
    ]
    return jobs + [job for cell in plan.swept_cells for seed in plan.swept_seeds for job in schedule_jobs(plan, cell, seed, bests, answers)]


def schedule_jobs(plan: Plan, cell: Cell, seed: int, bests: dict[str, float], answers: dict[str, dict[str, Any]]) -> list[Job]:
    """The candidates for S3: S1, and what can be made of the sweep."""
    best = bests[_name(cell, "s1")]
    scenario = cell.scenario(static_name(best), seed)
    service_ms = swept_service_ms(plan, cell, seed, answers).sum(axis=2)
    schedules = schedules_of(service_ms, plan.grid, best, profiles_of(scenario)[0], cell.nodes)
    return [Job(scenario), *(Job(scenario, schedule=schedule) for schedule in schedules)]


def _name(cell: Cell, which: str) -> str:
    return f"{cell.catalogue}/{cell.regime}/{cell.load}/{cell.admission}/{which}"


def best_statics(plan: Plan, answers: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Ratios of S0, S1 and steady-tuned per cell, by mean P99 over the statics' seeds; see the module's text."""
    tails = {cell: np.array([_mean_p99(cell, ratio, plan, answers) for ratio in plan.ratios]) for cell in plan.cells}
    bests: dict[str, float] = {}
    for cell in plan.cells:
        same = [other for other in plan.cells if _shop(other) == _shop(cell)]
        together = sum(tails[other] / np.nanmin(tails[other]) for other in same)
        steady = [other for other in same if other.regime == "steady"] or [cell]
        bests[_name(cell, "s0")] = plan.ratios[int(np.nanargmin(together))]
        bests[_name(cell, "s1")] = plan.ratios[int(np.nanargmin(tails[cell]))]
        bests[_name(cell, "steady-tuned")] = plan.ratios[int(np.nanargmin(tails[steady[0]]))]
    return bests


def _shop(cell: Cell) -> tuple[str, str, str]:
    return cell.catalogue, cell.load, cell.admission


def _mean_p99(cell: Cell, ratio: float, plan: Plan, answers: dict[str, dict[str, Any]]) -> float:
    found = [answers[Job(cell.scenario(static_name(ratio), seed)).key]["cell"] for seed in plan.static_seeds]
    return float(np.mean([one["latency_ms_p99"] if one["latency_ms_p99"] is not None else np.nan for one in found]))


def named_jobs(plan: Plan, cell: Cell, bests: dict[str, float]) -> dict[str, list[Job]]:
    """Every method of a cell but S3 by the name it has in the report, one job per seed; statics only on theirs."""
    named = {
        which: [Job(cell.scenario(static_name(bests[_name(cell, which)]), seed)) for seed in plan.seeds]
        for which in ("steady-tuned", "s0", "s1")
    }
    for method in methods_in(plan, cell):
        named[method] = [Job(cell.scenario(method, seed)) for seed in plan.seeds]
    for ratio in plan.ratios:
        named[static_name(ratio)] = [Job(cell.scenario(static_name(ratio), seed)) for seed in plan.static_seeds]
    return named


def routing_jobs(*, quick: bool, nodes: int, seeds: Sequence[int], catalogues: Sequence[str]) -> dict[str, dict[str, list[Job]]]:
    """Jobs by cell and router, all at one static split; the joint router also without its rent, and under the learned controller."""
    found: dict[str, dict[str, list[Job]]] = {}
    for catalogue in catalogues[:1] if quick else catalogues:
        for regime in REGIMES:
            for load in ("normal",) if quick else ("normal", "high"):
                cell = Cell(catalogue, regime, load, "shipped", nodes)
                static = static_name(SETTLED_RATIO)
                jobs = {router: [Job(cell.scenario(static, seed, router=router)) for seed in seeds] for router in ROUTERS}
                jobs["joint-without-rent"] = [Job(cell.scenario(static, seed, rent=False)) for seed in seeds]
                jobs["joint+helm"] = [Job(cell.scenario("helm", seed)) for seed in seeds]
                jobs["consistent-hash+helm"] = [Job(cell.scenario("helm", seed, router="consistent-hash")) for seed in seeds]
                found[f"{catalogue}/{regime}/{load}"] = jobs
    return found


def sensitivity_jobs(catalogue: str, *, quick: bool) -> list[tuple[Cell, str, str, Job]]:
    """(cell, variant, method, job): each cost constant times 0.5 and 2, at arrivals that keep the busiest minute as busy.

    Halving a constant lightens the load, and a light load has no winner; so the arrivals are scaled by what the constant
    changes of a typical request's cost.
    """
    methods = (*(static_name(ratio) for ratio in (0.3, 0.4, 0.5, 0.6, 0.7)), "b5", "b7", "helm")
    found = []
    for regime in ("burst",) if quick else ("trend", "burst"):
        cell = Cell(catalogue, regime, "normal", "none")
        for constant, factor in [("", 1.0), *((name, f) for name in COST_CONSTANTS for f in (0.5, 2.0))]:
            factors = {constant: factor} if constant else {}
            variant = f"{constant} x{factor:g}" if constant else "as-is"
            for method in methods:
                scenario = cell.scenario(method, 1, factor=1.0 / (1.0 + COST_CONSTANTS.get(constant, 0.0) * (factor - 1.0)))
                found.append((cell, variant, method, Job(msgspec.structs.replace(scenario, cost_factors=factors))))
    return found


def capacity_cells(*, quick: bool) -> list[Cell]:
    """Trend and burst of every catalogue under the shipped admission; one catalogue on few nodes where it must be quick."""
    catalogues, nodes = (CATALOGUES[:1], 2 * NODES) if quick else (CATALOGUES, CAPACITY_NODES)
    return [Cell(catalogue, regime, "normal", "shipped", nodes) for catalogue in catalogues for regime in CAPACITY_REGIMES]


def capacity_factors(*, quick: bool) -> tuple[float, ...]:
    """On a normal load's arrivals, increasing; 1 is among them."""
    return CAPACITY_FACTORS[::2] if quick else CAPACITY_FACTORS


class Carrier(NamedTuple):
    """Who is asked how much it carries."""

    cell: Cell
    method: str
    router: str

    def job(self, factor: float) -> Job:
        """The run with so many times the normal load's arrivals."""
        return Job(self.cell.scenario(self.method, 1, router=self.router, factor=factor))


def carriers(*, quick: bool) -> list[Carrier]:
    """In every cell: a static split behind every router, and who moves it behind ours."""
    static = static_name(SETTLED_RATIO)
    pairs = [*((static, router) for router in ROUTERS), ("b5", "joint"), ("helm", "joint")]
    return [Carrier(cell, method, router) for cell in capacity_cells(quick=quick) for method, router in pairs]


def placement_jobs(catalogue: str) -> list[tuple[Cell, tuple[float, ...], Job]]:
    """(cell, a ratio per node, job): equal splits against KV-heavy and EMB-heavy halves of the fleet with the same mean."""
    found = []
    for regime in REGIMES:
        for admission in ADMISSIONS:
            cell = Cell(catalogue, regime, "normal", admission)
            half = cell.nodes // 2
            for mean in (0.35, 0.45, 0.55):
                for apart in (0.0, 0.1, 0.2):
                    splits = (round(mean - apart, 2),) * half + (round(mean + apart, 2),) * (cell.nodes - half)
                    found.append((cell, splits, Job(cell.scenario(static_name(mean), 1), splits=splits)))
    return found
