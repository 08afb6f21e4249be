"""The way from a bare machine to `.venv`: what is refused, which commands are made, and what a second run does."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
GIB = 2**30
TORCH = "2.13.0"


def load_bootstrap() -> ModuleType:
    spec = importlib.util.spec_from_file_location("helm_bootstrap", ROOT / "scripts/bootstrap.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and named tuples look their module up
    spec.loader.exec_module(module)
    return module


bootstrap = load_bootstrap()
NOTHING = bootstrap.PipSettings((), "", "")


@pytest.fixture
def wheels(tmp_path: Path) -> str:
    folder = tmp_path / "wheels"
    folder.mkdir()
    (folder / f"torch-{TORCH}+cpu-cp311-cp311-linux_x86_64.whl").touch()
    return str(folder)


Ways = list[tuple[str, dict[str, str]]]


def ways(settings: object, environ: dict[str, str], *, has_gpu: bool = False, version: tuple[int, int] = (3, 11)) -> Ways:
    found = bootstrap.ways_to_install(settings, environ, has_gpu=has_gpu, version=version, torch_version=TORCH)
    return [(way.label.split(" ")[0], way.env) for way in found]


# --- preflight


@pytest.mark.parametrize(("version", "supported"), [((3, 10), False), ((3, 11), True), ((3, 12), True), ((3, 13), False)])
def test_only_two_pythons_are_supported(version: tuple[int, int], supported: bool) -> None:
    assert (bootstrap.python_problem(version) is None) is supported


def test_too_little_disk_is_one_line_with_both_numbers() -> None:
    line = bootstrap.disk_problem(2 * GIB, 3 * GIB, Path("/clone"))
    assert line == "needs 3 GiB of free disk for its packages, /clone has 2.0 GiB."
    assert bootstrap.disk_problem(3 * GIB, 3 * GIB, Path("/clone")) is None


def test_too_little_memory_is_one_line_and_a_nominal_two_gigabytes_are_enough() -> None:
    assert bootstrap.memory_problem(GIB) == "needs 2 GiB of memory for its smallest fleet, this machine gives it 1.0 GiB."
    assert bootstrap.memory_problem(int(1.93 * GIB)) is None


def test_another_platform_is_told_and_not_refused() -> None:
    assert bootstrap.platform_notice("Linux", "x86_64") is None
    assert "redis-server" in bootstrap.platform_notice("Linux", "aarch64")


# --- where packages come from


def test_pip_settings_come_from_the_environment_before_the_configuration() -> None:
    configured = bootstrap.parse_pip_config("global.find-links='/a /b'\nglobal.index-url='file:///simple'\n:env:.cert='/ignored'\n")
    assert configured == {"find-links": "/a /b", "index-url": "file:///simple"}
    assert bootstrap.pip_settings({}, configured) == (("/a", "/b"), "file:///simple", "")
    assert bootstrap.pip_settings({"PIP_FIND_LINKS": "/c"}, configured).find_links == ("/c",)


def test_a_configured_list_on_several_lines_is_read_as_one() -> None:
    assert bootstrap.parse_pip_config(r"global.find-links='\n/a\n/b'") == {"find-links": " /a /b"}


def test_uv_is_told_what_pip_knows_in_its_own_spelling() -> None:
    settings = bootstrap.PipSettings(("/a", "/b"), "file:///simple", "/ca.pem")
    assert bootstrap.uv_base_env(settings, {}) == {
        "UV_FIND_LINKS": "/a,/b",
        "UV_DEFAULT_INDEX": "file:///simple",
        "SSL_CERT_FILE": "/ca.pem",
    }


def test_what_the_caller_set_for_uv_itself_stays() -> None:
    settings = bootstrap.PipSettings(("/a",), "file:///simple", "/ca.pem")
    own = {"UV_FIND_LINKS": "/mine", "UV_DEFAULT_INDEX": "file:///mine", "SSL_CERT_FILE": "/mine.pem"}
    assert bootstrap.uv_base_env(settings, own) == {}


def test_find_links_come_first_then_the_cpu_build_then_the_plain_index(wheels: str) -> None:
    base = {"UV_FIND_LINKS": wheels}
    assert ways(bootstrap.PipSettings((wheels,), "", ""), {}) == [
        ("find-links", base),
        ("CPU", {**base, "UV_TORCH_BACKEND": "cpu"}),
        ("plain", base),
    ]


def test_without_find_links_the_cpu_build_comes_first() -> None:
    assert ways(NOTHING, {}) == [("CPU", {"UV_TORCH_BACKEND": "cpu"}), ("plain", {})]


def test_with_a_gpu_the_cpu_build_is_not_asked_for() -> None:
    assert ways(NOTHING, {}, has_gpu=True) == [("plain", {})]


def test_find_links_without_this_pythons_torch_do_not_lead_to_cuda_by_accident(wheels: str) -> None:
    labels = [label for label, _ in ways(bootstrap.PipSettings((wheels,), "", ""), {}, version=(3, 12))]
    assert labels == ["CPU", "plain"]


def test_a_wished_backend_comes_before_everything(wheels: str) -> None:
    labels = [label for label, _ in ways(bootstrap.PipSettings((wheels,), "", ""), {"UV_TORCH_BACKEND": "cu130"})]
    assert labels == ["torch", "find-links", "CPU", "plain"]


def test_find_links_at_an_address_are_trusted() -> None:
    assert bootstrap.has_torch_wheel(["https://wheels.example/"], (3, 11), TORCH)
    assert not bootstrap.has_torch_wheel(["/nonexistent"], (3, 11), TORCH)


def test_find_links_given_as_a_file_address_are_looked_into(wheels: str) -> None:
    assert bootstrap.has_torch_wheel([f"file://{wheels}"], (3, 11), TORCH)


def test_the_plain_way_says_its_size_and_needs_room_for_it() -> None:
    plain = bootstrap.ways_to_install(NOTHING, {}, has_gpu=False, version=(3, 11), torch_version=TORCH)[-1]
    assert "2.5 GB to download" in plain.notice
    assert plain.needed_bytes == 10 * GIB


def test_torch_is_pinned_without_a_build_name() -> None:
    assert bootstrap.pinned_version((ROOT / "requirements-agent.txt").read_text(), "torch") == TORCH
    with pytest.raises(bootstrap.Refusal, match="pin no version of torch"):
        bootstrap.pinned_version("torch>=2\n", "torch")


def test_every_requirement_is_pinned_exactly() -> None:
    for path in ROOT.glob("requirements*.txt"):
        lines = [line.split("#")[0].split(";")[0].strip() for line in path.read_text().splitlines()]
        assert [line for line in lines if line and not line.startswith("-r ") and "==" not in line] == []


# --- commands, with a shell that remembers them


class Recorder(bootstrap.Shell):
    """Answers each command from a script of refusals: a command fails when one of `failing` is in it."""

    def __init__(self, root: Path, failing: tuple[str, ...] = ()) -> None:
        super().__init__(root, {}, dry_run=False)
        self.failing = failing
        self.ran: list[str] = []

    def run(self, command: list[str], env: dict[str, str] | None = None) -> bool:
        line = " ".join([*(f"{key}={value}" for key, value in (env or {}).items()), *command])
        self.ran.append(line)
        return not any(word in line for word in self.failing)


PYTHON = Path(".venv/bin/python")


def test_the_first_way_that_works_ends_the_search(tmp_path: Path) -> None:
    shell = Recorder(tmp_path)
    assert bootstrap.install_packages(shell, PYTHON, ["requirements.txt"], [bootstrap.Way("one", {"A": "1"}), bootstrap.Way("two", {})])
    assert shell.ran == [
        ".venv/bin/python -m pip install --quiet " + bootstrap.UV_REQUIREMENT,
        "A=1 .venv/bin/python -m uv pip install --python .venv/bin/python -r requirements.txt",
    ]


def test_a_way_that_fails_is_followed_by_the_next(tmp_path: Path) -> None:
    shell = Recorder(tmp_path, failing=("A=1",))
    assert bootstrap.install_packages(shell, PYTHON, ["requirements.txt"], [bootstrap.Way("one", {"A": "1"}), bootstrap.Way("two", {})])
    assert shell.ran[-1] == ".venv/bin/python -m uv pip install --python .venv/bin/python -r requirements.txt"


def test_without_uv_pip_installs(tmp_path: Path) -> None:
    shell = Recorder(tmp_path, failing=(bootstrap.UV_REQUIREMENT,))
    assert not bootstrap.install_packages(shell, PYTHON, ["requirements.txt"], [bootstrap.Way("find-links /a", {})])
    assert shell.ran[-1] == ".venv/bin/python -m pip install --no-compile -r requirements.txt"
    assert len(shell.ran) == 2


def test_when_no_way_works_one_line_says_so(tmp_path: Path) -> None:
    with pytest.raises(bootstrap.Refusal, match="no way of installing the packages worked"):
        bootstrap.install_packages(Recorder(tmp_path, failing=("install",)), PYTHON, ["requirements.txt"], [bootstrap.Way("one", {})])


def test_a_way_that_does_not_fit_on_the_disk_is_refused_before_it_starts(tmp_path: Path) -> None:
    shell = Recorder(tmp_path)
    with pytest.raises(bootstrap.Refusal, match="of free disk"):
        bootstrap.install_packages(shell, PYTHON, ["requirements.txt"], [bootstrap.Way("huge", {}, needed_bytes=2**60)])
    assert len(shell.ran) == 1


def test_the_tree_is_put_on_the_path_and_not_copied() -> None:
    assert bootstrap.project_command(PYTHON, with_uv=True)[-4:] == ["--config-settings", "editable_mode=compat", "-e", "."]
    assert "--no-deps" in bootstrap.project_command(PYTHON, with_uv=False)


def test_an_unwritable_home_sends_the_installers_caches_into_the_state_folder(tmp_path: Path) -> None:
    assert bootstrap.cache_env(tmp_path, {"HOME": str(tmp_path)}) == {}
    assert bootstrap.cache_env(tmp_path, {"HOME": "/proc/nowhere"})["UV_CACHE_DIR"] == str(tmp_path / "cache/uv")


# --- stamps


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "a clone"
    (root / "agents").mkdir(parents=True)
    (root / "agents/kernel.py").write_text("x = 1\n")
    for name in (*bootstrap.RUN_FILES, *bootstrap.DEV_FILES):
        (root / name).write_text("torch==2.13.0\n")
    return root


def test_the_install_key_changes_with_requirements_python_and_place(tree: Path) -> None:
    key = bootstrap.install_key(tree, bootstrap.RUN_FILES, (3, 11))
    assert key == bootstrap.install_key(tree, bootstrap.RUN_FILES, (3, 11))
    assert key != bootstrap.install_key(tree, bootstrap.RUN_FILES, (3, 12))
    (tree / "requirements-web.txt").write_text("Django==5.2.19\n")
    assert key != bootstrap.install_key(tree, bootstrap.RUN_FILES, (3, 11))
    tree.rename(tree.with_name("moved"))
    assert key != bootstrap.install_key(tree.with_name("moved"), bootstrap.RUN_FILES, (3, 11))


def test_the_kernel_key_changes_when_numba_would_compile_again(tree: Path) -> None:
    key = bootstrap.kernel_key(tree)
    assert key == bootstrap.kernel_key(tree)
    os.utime(tree / "agents/kernel.py", ns=(1, 1))
    assert key != bootstrap.kernel_key(tree)


def test_a_damaged_stamp_is_no_stamp(tmp_path: Path) -> None:
    path = tmp_path / "stamp.json"
    path.write_text("{ half")
    assert bootstrap.read_stamp(path) == {}
    bootstrap.write_stamp(path, run="a")
    bootstrap.write_stamp(path, dev="b")
    assert json.loads(path.read_text()) == {"run": "a", "dev": "b"}


def stamp_as_done(tree: Path) -> None:
    (tree / ".venv/bin").mkdir(parents=True)
    (tree / ".venv/bin/python").touch()
    version = sys.version_info[:2]
    bootstrap.write_stamp(tree / ".venv/helm-stamp.json", run=bootstrap.install_key(tree, bootstrap.RUN_FILES, version))
    bootstrap.write_stamp(tree / ".helm/warm-stamp.json", kernels=bootstrap.kernel_key(tree))


def test_a_second_run_starts_no_command_at_all(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stamp_as_done(tree)
    monkeypatch.setattr(subprocess, "run", lambda *command, **_: pytest.fail(f"ran {command}"))
    bootstrap.set_up(tree, {"HOME": str(tree)}, dev=False, dry_run=False)


def test_changed_sources_compile_and_install_nothing(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stamp_as_done(tree)
    (tree / "agents/kernel.py").write_text("x = 22\n")
    ran: list[list[str]] = []

    def record(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        ran.append(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", record)
    bootstrap.set_up(tree, {"HOME": str(tree)}, dev=False, dry_run=False)
    assert ran == [[str(tree / ".venv/bin/python"), "-m", "helmctl.supervisor.warm"]]


# --- the shell script in front, with Pythons made for the purpose


def fake_python(folder: Path, name: str, answer: str) -> None:
    folder.mkdir(exist_ok=True)
    script = folder / name
    script.write_text(f'#!/bin/sh\nif [ "$1" = -c ]; then echo "{answer}"; else echo "ran {name} $*"; fi\n')
    script.chmod(0o755)


def start(folder: Path, *arguments: str, **environ: str) -> tuple[int, str]:
    clone = folder / "clone with a space"
    (clone / "scripts").mkdir(parents=True, exist_ok=True)
    for name in ("bootstrap.sh", "bootstrap.py"):
        (clone / "scripts" / name).write_bytes((ROOT / "scripts" / name).read_bytes())
    env = {"PATH": f"{folder / 'bin'}:{folder / 'tools'}", **environ}
    (folder / "tools").mkdir(exist_ok=True)
    if not (folder / "tools/dirname").exists():
        (folder / "tools/dirname").symlink_to("/usr/bin/dirname")
    command = ["/bin/sh", str(clone / "scripts/bootstrap.sh"), *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_the_newest_supported_python_on_the_path_is_taken(tmp_path: Path) -> None:
    fake_python(tmp_path / "bin", "python3", "3.13 ok")
    fake_python(tmp_path / "bin", "python3.11", "3.11 ok")
    code, said = start(tmp_path, "--dev")
    assert code == 0
    assert said.startswith("ran python3.11 ") and said.endswith("bootstrap.py --dev\n")


def test_a_python_without_ensurepip_is_passed_over_for_one_that_has_it(tmp_path: Path) -> None:
    fake_python(tmp_path / "bin", "python3.12", "3.12 no-ensurepip")
    fake_python(tmp_path / "bin", "python3.11", "3.11 ok")
    assert start(tmp_path)[1].startswith("ran python3.11 ")


def test_a_missing_ensurepip_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    fake_python(tmp_path / "bin", "python3", "3.11 no-ensurepip")
    code, said = start(tmp_path)
    assert code == 2
    assert said == (
        "HELM: python3 (Python 3.11) has no ensurepip, so it cannot make a virtual environment: "
        "install the python3-venv package that belongs to it.\n"
    )


def test_an_unsupported_python_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    fake_python(tmp_path / "bin", "python3", "3.10 ok")
    code, said = start(tmp_path)
    assert code == 2
    assert said == "HELM: needs Python 3.11 or 3.12, found python3 is 3.10. Install one, or name it: make PYTHON=/path/to/python3.12\n"


def test_a_named_python_is_the_only_one_tried(tmp_path: Path) -> None:
    fake_python(tmp_path / "bin", "python3.11", "3.11 ok")
    fake_python(tmp_path / "bin", "mine", "3.13 ok")
    code, said = start(tmp_path, PYTHON="mine")
    assert code == 2
    assert said == "HELM: PYTHON=mine is not a Python 3.11 or 3.12 that runs (mine is 3.13).\n"


def test_no_python_at_all_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    code, said = start(tmp_path)
    assert code == 2
    assert said.count("\n") == 1 and "found none" in said
