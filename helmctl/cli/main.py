"""`helmctl`: one file per group of commands, imported only when it is asked for, so that `--help` answers at once."""

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

import typer

from helmctl.supervisor.refusal import Refusal
from helmctl.supervisor.state import find_state_folder

KERNEL_COMMANDS = {"sim", "eval", "advise", "bench", "trace", "calibrate"}


class Entry(NamedTuple):
    """Where a command lives: an attribute that is a function (one command) or a `typer.Typer` (a group)."""

    module: str
    attribute: str
    help: str
    passes_options: bool = False  # its options are another program's, which documents them


COMMANDS = {
    "up": Entry("helmctl.cli.fleet", "up", "Run the whole system on this machine."),
    "fleet": Entry("helmctl.cli.fleet", "fleet", "Run router, nodes and load generator, without the control plane."),
    "down": Entry("helmctl.cli.fleet", "down", "Stop what runs on this machine."),
    "top": Entry("helmctl.cli.top", "top", "Watch the nodes of this machine."),
    "route": Entry("helmctl.cli.route", "app", "Explain how the router chose nodes."),
    "load": Entry("helmctl.cli.load", "load", "Send a workload or a replayed log to the router.", passes_options=True),
    "status": Entry("helmctl.cli.node", "status", "State of the fleet, from the control plane."),
    "node": Entry("helmctl.cli.node", "app", "List, show, override, pin and release nodes."),
    "model": Entry("helmctl.cli.model", "app", "Import a model of your own, and choose the version that nodes serve."),
    "whatif": Entry("helmctl.cli.whatif", "app", "Compare ratios with the controller, in the simulator."),
    "policy": Entry("helmctl.cli.policy", "app", "Train, keep and roll out learned policies."),
    "sim": Entry("helmctl.cli.sim", "app", "Run the simulated fleet."),
    "eval": Entry("helmctl.cli.evaluate", "evaluate", "Run the evaluation suites in the simulator."),
    "trace": Entry("helmctl.cli.trace", "app", "Import and describe logs of user, item and time."),
    "advise": Entry("helmctl.cli.advise", "advise", "What HELM would bring on a log: split, memory, nodes."),
    "calibrate": Entry("helmctl.cli.calibrate", "calibrate", "Measure this machine and write its profile."),
    "bench": Entry("helmctl.cli.bench", "bench", "Measure, and print one JSON object."),
}

PASS_OPTIONS: dict[str, Any] = {
    "context_settings": {"ignore_unknown_options": True, "allow_extra_args": True},
    "add_help_option": False,
}


def available(commands: dict[str, Entry] = COMMANDS) -> dict[str, Entry]:
    """Commands whose module is installed: the worker's and the agent's images lack some."""
    return {name: entry for name, entry in commands.items() if importlib.util.find_spec(entry.module) is not None}


def build(wanted: str | None) -> typer.Typer:
    """The command line with `wanted` imported and the others as names with a line of help."""
    root = typer.Typer(
        help="HELM: one pool of HBM per node, shared by embedding rows and KV prefixes.",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    root.callback()(_group)
    for name, entry in available().items():
        if name != wanted:
            root.command(name, help=entry.help)(_placeholder)
            continue
        target: typer.Typer | Callable[..., object] = getattr(importlib.import_module(entry.module), entry.attribute)
        if isinstance(target, typer.Typer):
            root.add_typer(target, name=name, help=entry.help)
        else:
            root.command(name, help=entry.help, **(PASS_OPTIONS if entry.passes_options else {}))(target)
    return root


def run(arguments: Sequence[str]) -> int:
    """Exit code of `helmctl ARGUMENTS`: 2 with one line for whatever the person got wrong."""
    arguments = list(arguments) or ["--help"]
    wanted = next((word for word in arguments if not word.startswith("-")), None)
    if wanted in KERNEL_COMMANDS:
        use_compiled_kernels()
    try:
        result = build(wanted)(args=arguments, prog_name="helmctl", standalone_mode=False)
    except typer.Abort:
        return 130
    except typer.TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # a group named without its command: the message is its help
            sys.stderr.write(f"{error}\n")
            return 2
        return _refuse(_message(error))
    except Refusal as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        return 130
    return result if isinstance(result, int) else 0


def app() -> NoReturn:
    """Entry point of the `helmctl` script."""
    sys.exit(run(sys.argv[1:]))


def use_compiled_kernels() -> None:
    """Kernels that any process of this clone has compiled serve these commands too; the simulator's take a minute."""
    if "NUMBA_CACHE_DIR" not in os.environ:
        folder = find_state_folder()
        folder.prepare()
        folder.adopt_caches()


def _group() -> None:
    """Only here so that a single command is still named on the command line."""


def _placeholder() -> None:
    """Stands for a command that was not asked for."""


def _refuse(line: str) -> int:
    sys.stderr.write(f"helmctl: {line}\n")
    return 2


def _message(error: typer.TyperException) -> str:
    """The error in one line."""
    text = error.format_message() if hasattr(error, "format_message") else str(error)
    return " ".join(text.split())


if __name__ == "__main__":
    app()
