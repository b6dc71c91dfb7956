"""The house keeps its own rules: imports go down, functions are short, two files agree."""

import ast
import importlib.metadata
import json
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
ROOMS = (  # in the order in which data flows: each imports itself and those before it
    *("errors", "paths", "devices", "atomic", "hub"),
    *("metrics", "data", "tasks", "models", "evaluation", "training", "export", "plots", "cli"),
)
CHECKS = {"errors", "paths", "checks"}  # what the exercises' checks may import
FILES = sorted((ROOT / "ftkit").rglob("*.py"))


def imported_rooms(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    froms = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    names = [f"{n.module}.{alias.name}" for n in froms for alias in n.names]
    names += [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
    found = {name.split(".")[1] for name in names if name.startswith("ftkit.")}
    return found & {*ROOMS, "checks"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_imports_go_down_only(path):
    room = path.relative_to(ROOT / "ftkit").parts[0].removesuffix(".py")
    if room == "checks":
        assert imported_rooms(path) <= CHECKS
    elif not room.startswith("__"):
        assert imported_rooms(path) <= set(ROOMS[: ROOMS.index(room) + 1])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_functions_are_short(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            docstring = ast.get_docstring(node, clean=False)
            lines = node.end_lineno - node.body[0].lineno + 1
            lines -= docstring.count("\n") + 1 if docstring else 0
            assert lines <= 50, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_whatever_is_public_has_a_docstring(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    public = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    public += [m for n in public if isinstance(n, ast.ClassDef) for m in n.body]
    for node in public:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node) or node.name == "forward", node.name


def test_no_room_is_a_hall():
    for path in FILES:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path


def test_conda_takes_everything_from_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    python, pip, packages = environment["dependencies"]
    assert python == "python" + project["requires-python"]
    assert (pip, packages) == (
        "pip",
        {"pip": ["--constraint constraints.txt", "--editable .[course,test]"]},
    )


def test_every_dependency_is_pinned_within_its_range():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["course"], *extras["test"]]
    for requirement in map(Requirement, wanted):
        pin = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pin, prereleases=True), requirement
    assert pins["torch"] == "2.13.0"


def test_whatever_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    named = [*project["dependencies"], *extras["course"], *extras["test"]]
    declared = {canonicalize_name(Requirement(text).name) for text in named}
    packages = importlib.metadata.packages_distributions()
    for path in FILES:
        trees = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        names = {n.module for n in trees if isinstance(n, ast.ImportFrom) and n.module}
        trees = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        names |= {a.name for n in trees if isinstance(n, ast.Import) for a in n.names}
        for top in {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"ftkit"}:
            assert {canonicalize_name(name) for name in packages[top]} & declared, (path, top)


def test_the_readme_names_the_test_command_that_ci_runs():
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.search(r"^make test", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)


def test_every_way_to_set_up_fetches_the_models():
    makefile, environment, readme = (
        (ROOT / name).read_text(encoding="utf-8")
        for name in ("Makefile", "environment.yml", "README.md")
    )
    assert "--editable" in makefile.split("$(BIN)/ftkit fetch")[0]
    assert "conda activate ftkit; ftkit fetch" in environment
    assert ".venv/bin/ftkit fetch" in readme
    assert "conda activate ftkit\nftkit fetch" in readme


def test_the_readme_shows_the_recorded_study():
    from tests.benchmarks.report import END, START, read_study, table

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.split(START)[1].split(END)[0].strip() == table(read_study())


def test_the_readme_shows_the_recorded_speeds():
    from tests.benchmarks.report import SPEED_END, SPEED_START, speed_table

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.split(SPEED_START)[1].split(SPEED_END)[0].strip() == speed_table()


def test_the_readme_shows_every_task_and_each_beats_its_baseline():
    from ftkit.tasks import TASKS
    from tests.benchmarks.report import TASKS_END, TASKS_START, tasks_table

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.split(TASKS_START)[1].split(TASKS_END)[0].strip() == tasks_table()
    results = json.loads((ROOT / "data/results/tasks.json").read_text(encoding="utf-8"))
    assert set(results) == set(TASKS) - {"preference"}  # no test pairs: the chats' prompts are it
    for entry in results.values():
        (_, *tuned), (_, *floor) = entry["scores"].values()
        lower_is_better = entry["metric"] == "loss"
        assert tuned[1] < floor[0] if lower_is_better else tuned[0] > floor[1]
