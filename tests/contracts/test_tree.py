"""House rules about the tree itself: names, what a committed file may mention, and that the README tells the truth."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from helmctl.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
DRAWERS = {"utils", "util", "common", "helpers", "misc", "extras"}
TEXT = {".py", ".sh", ".toml", ".txt", ".md", ".yml", ".yaml", ".json", ".ts", ".tsx", ".css", ".html", ".cfg", ".ini", "", ".npmrc"}
# Written in pieces, so that this file does not match itself.
HOSTS = ("pypi" + r"\.org", "pythonhosted" + r"\.org", "registry" + r"\.npmjs", "download" + r"\.pytorch", "deb" + r"\.debian")
REGISTRY = re.compile("|".join(HOSTS))
FOLDERS = ("/work" + "/main", "/root" + "/", "/opt" + "/wheels", "/opt" + "/pypi", r"/home" + r"/[a-z]+/")
MACHINE_PATH = re.compile("|".join(FOLDERS))


def tracked() -> list[Path]:
    """Files that git knows; a source archive without git is looked at whole."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        return [ROOT / name for name in listing.split("\0") if name and (ROOT / name).is_file()]
    return [path for path in ROOT.rglob("*") if path.is_file() and not {".venv", ".helm", "node_modules"} & set(path.parts)]


def texts() -> list[tuple[str, str]]:
    files = [path for path in tracked() if path.suffix in TEXT and path.name != "LICENSE"]
    return [(str(path.relative_to(ROOT)), path.read_text("utf-8", errors="replace")) for path in files]


def test_no_module_is_a_drawer() -> None:
    named = [path for path in tracked() if path.suffix in {".py", ".ts", ".tsx"} and ({path.stem, *path.parts} & DRAWERS)]
    assert [str(path.relative_to(ROOT)) for path in named] == []


def test_no_file_names_a_package_registry() -> None:
    assert [(name, found.group()) for name, text in texts() if (found := REGISTRY.search(text))] == []


def test_no_file_names_a_folder_of_somebodys_machine() -> None:
    assert [(name, found.group()) for name, text in texts() if (found := MACHINE_PATH.search(text))] == []


def test_the_rules_would_notice() -> None:
    assert REGISTRY.search("https://py" + "pi.org/simple")
    assert MACHINE_PATH.search("see /ro" + "ot/x")


def test_nothing_generated_or_secret_is_committed() -> None:
    folders = {".venv", ".helm", "node_modules", "__pycache__", "dist"}
    assert [str(path) for path in tracked() if folders & set(path.relative_to(ROOT).parts)] == []


# --- commands that documents promise


def documents() -> list[Path]:
    return [path for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")) if path.exists()]


def code_of(document: Path) -> str:
    """Fenced blocks and inline code of a document."""
    text = document.read_text("utf-8")
    return "\n".join([*re.findall(r"```[a-z]*\n(.*?)```", text, re.DOTALL), *re.findall(r"`([^`\n]+)`", text)])


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_every_make_target_a_document_names_exists(document: Path) -> None:
    named = set(re.findall(r"\bmake ([a-z][a-z-]*)", code_of(document)))
    assert named - make_targets() == set()


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_every_helmctl_command_a_document_names_exists(document: Path) -> None:
    named = set(re.findall(r"\bhelmctl ([a-z][a-z-]*)", code_of(document)))
    assert named - set(COMMANDS) == set()


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_every_file_a_document_links_to_exists(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", document.read_text("utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_the_readme_names_the_two_commands_and_the_licence() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert all(words in text for words in ("make fleet", "make test", "Apache-2.0"))


def test_continuous_integration_runs_what_people_run() -> None:
    lines = [line.strip() for line in (ROOT / ".ci/run").read_text("utf-8").splitlines()]
    commands = [line for line in lines if line and not line.startswith(("#", "set ", "cd "))]
    assert commands == ["make test"]
