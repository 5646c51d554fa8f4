"""The rooms of the house: what is installed under which name, and which room may import which."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from rvos_edge.bundle import shipped_bundle

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "torchvision", "transformers", "onnx", "onnxscript", "safetensors", "yaml")
ROOMS = ("rvos_edge.trainer", "rvos_edge.export", "rvos_edge.benchmarks")


def imports(node: ast.AST) -> Iterator[str]:
    """Names of the modules that are imported anywhere below a node."""
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            assert child.module is not None
            yield child.module
            yield from (f"{child.module}.{alias.name}" for alias in child.names)


def imported_when_loaded(tree: ast.Module) -> set[str]:
    """Modules that importing a file imports: all but those inside functions."""
    outside = ast.Module([node for node in tree.body if not isinstance(node, ast.FunctionDef)], [])
    for node in ast.walk(outside):
        if isinstance(node, ast.ClassDef):
            node.body = [item for item in node.body if not isinstance(item, ast.FunctionDef)]
    return set(imports(outside))


def within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def files(room: str) -> list[Path]:
    found = sorted((ROOT / room).rglob("*.py"))
    assert found
    return found


PACKAGES = (("rvos_edge", "rvos_edge"), *((name.rpartition(".")[2], name) for name in ROOMS))


def named_files(room: str, name: str) -> Iterator[tuple[str, Path]]:
    """Modules of a room with their import names."""
    for path in files(room):
        parts = path.relative_to(ROOT / room).with_suffix("").parts
        yield ".".join([name, *parts]).removesuffix(".__init__"), path


def reached(path: Path, modules: dict[str, Path]) -> set[str]:
    """Modules of the project that a file imports; of `from package import module` the module alone."""
    names = set(imports(ast.parse(path.read_text(encoding="utf-8")))) & modules.keys()
    return {name for name in names if not any(other.startswith(f"{name}.") for other in names)}


def test_installed_under_one_name_outside_the_checkout(tmp_path: Path) -> None:
    code = "import rvos_edge, rvos_edge.trainer, rvos_edge.export, rvos_edge.benchmarks; print(rvos_edge.__version__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == metadata.version("rvos-edge")


def test_console_script_is_the_command_line() -> None:
    (script,) = metadata.entry_points(group="console_scripts", name="rvos-edge")
    assert script.value == "rvos_edge.cli:main"


def test_every_package_is_listed() -> None:
    """A folder that pyproject.toml forgets works in an editable install and is missing from a wheel."""
    listed = set()
    for line in (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines():
        if line.startswith('  "rvos_edge') and line.endswith('",'):
            listed.add(line.strip(' ",'))
    for room, name in (("rvos_edge", "rvos_edge"), *((name.rpartition(".")[2], name) for name in ROOMS)):
        for path in (ROOT / room).rglob("__init__.py"):
            assert ".".join([name, *path.parent.relative_to(ROOT / room).parts]) in listed


@pytest.mark.parametrize("path", files("rvos_edge"), ids=lambda path: str(path.relative_to(ROOT)))
def test_runtime_imports_no_other_room_and_nothing_heavy(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = imported_when_loaded(tree) if path.parent.name == "cli" else set(imports(tree))
    assert not [name for name in names if within(name, (*HEAVY, *ROOMS))]


def test_command_line_reaches_the_rooms_inside_its_commands() -> None:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in files("rvos_edge/cli")]
    assert any(within(name, ROOMS) for tree in trees for name in imports(tree))


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        ("trainer", ("rvos_edge.export", "rvos_edge.benchmarks", "rvos_edge.cli")),
        ("export", ("rvos_edge.benchmarks", "rvos_edge.cli")),
    ],
)
def test_arrows_between_the_rooms(room: str, forbidden: tuple[str, ...]) -> None:
    for path in files(room):
        names = set(imports(ast.parse(path.read_text(encoding="utf-8"))))
        assert not [name for name in names if within(name, forbidden)], path


def test_no_module_imports_itself_in_a_circle() -> None:
    """Imports inside of functions and those for type checkers count too."""
    modules = {name: path for room, name in PACKAGES for name, path in named_files(room, name)}
    arrows = {name: reached(path, modules) - {name} for name, path in modules.items()}
    while leaves := [name for name, targets in arrows.items() if not targets & arrows.keys()]:
        for name in leaves:
            del arrows[name]
    assert not arrows, f"a circle is among {sorted(arrows)}"


def test_the_shipped_card_names_no_folder_of_the_machine_it_was_trained_on() -> None:
    card = shipped_bundle() / "card.json"
    assert not re.findall(r'"(?:/|~|[A-Z]:)[^"]*"', card.read_text(encoding="utf-8"))


def test_images_are_built_of_everything_that_is_installed() -> None:
    """.dockerignore leaves out all but what it names."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    named = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert {"rvos_edge", *(name.rpartition(".")[2] for name in ROOMS)} <= named
    assert {"README.md", "LICENSE", "pyproject.toml", "constraints.txt"} <= named
    assert all((ROOT / name).exists() for name in named)
