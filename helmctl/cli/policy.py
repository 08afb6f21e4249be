"""`helmctl policy train`: train a policy in the simulator, from nothing; what is done with versions is in `policy_versions`."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from helmctl.cli import policy_versions
from helmctl.supervisor.refusal import Refusal

if TYPE_CHECKING:
    from agents.learning.config import TrainingConfig
    from agents.learning.train import Trained

app = typer.Typer(no_args_is_help=True, help="Train policies, keep their versions, and say which nodes decide by them.")
app.add_typer(policy_versions.app)
SOURCE = Path(__file__).resolve().parents[2]


@app.command("train")
def train_command(
    config: Annotated[str, typer.Option(help="helm, paper, or a .toml file")] = "helm",
    seed: Annotated[int, typer.Option(help="of streams, network and exploration")] = 1,
    steps: Annotated[int | None, typer.Option(min=0, help="Decisions of PPO instead of the configuration's.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for policy, card and learning curve.")] = Path("trained"),
    evaluate: Annotated[bool, typer.Option(help="Compare with rules on unseen streams, for the card.")] = True,
    processes: Annotated[int, typer.Option(min=1, max=64, help="Simulations at a time, while lessons are taught.")] = 2,
) -> None:
    """Train one policy; the same configuration and seed give the same policy."""
    missing = [name for name in ("stable_baselines3", "gymnasium") if importlib.util.find_spec(name) is None]
    if missing:
        raise Refusal(f"training needs {' and '.join(missing)}: install requirements-worker.txt")
    from helmctl.cli.main import use_compiled_kernels

    use_compiled_kernels()
    from agents.learning.train import train

    try:
        chosen = _configured(config, steps)
        _check(out, seed)
        trained = train(chosen, seed, _say, processes=processes)
    except (ValueError, OSError) as error:
        raise Refusal(str(error)) from error
    _write(out, chosen, seed, trained, evaluated=evaluate)


def _configured(name: str, steps: int | None) -> "TrainingConfig":
    from agents.learning.config import load_config

    config = load_config(name)
    return config if steps is None else msgspec.structs.replace(config, ppo=msgspec.structs.replace(config.ppo, steps=steps))


def _check(out: Path, seed: int) -> None:
    if not 0 <= seed < 1_000_000:
        raise ValueError("seed: must be 0 to 999,999")
    out.mkdir(parents=True, exist_ok=True)


def _write(out: Path, config: "TrainingConfig", seed: int, trained: "Trained", *, evaluated: bool) -> None:
    from agents.learning.save import save

    paths = save(out, config, seed, trained, git_revision=_git_revision(), evaluated=evaluated, say=_say)
    typer.echo("\n".join(str(path) for path in paths))


def _git_revision() -> str:
    """Of the source; `unknown` outside a clone, with `+` when files differ from it."""
    try:
        answers = [
            subprocess.run(["git", *words], cwd=SOURCE, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
            for words in (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        ]
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return answers[0] + ("+" if answers[1] else "")


def _say(line: str) -> None:
    sys.stderr.write(f"helmctl policy train: {line}\n")
    sys.stderr.flush()
