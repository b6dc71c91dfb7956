"""The notebooks keep their form; that they run is nbval's part, beside this file."""

import ast
import re
import statistics
from pathlib import Path

import nbformat
import pytest

import ftkit
from ftkit.paths import bundled

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("[0-9]*.ipynb"))
EVERY = NOTEBOOKS + sorted((FOLDER / "solutions").glob("*.ipynb"))
# helper → the notebook that builds it by hand; the same table stands in CONTRIBUTING.md
BY_HAND = {
    **dict.fromkeys(("train", "TrainingRun", "TrainingConfig", "evaluate", "save_pretrained"), 6),
    **dict.fromkeys(("set_trainable", "count_parameters"), 7),
    **dict.fromkeys(("parameter_groups", "add_lora", "merge_lora"), 8),
    **dict.fromkeys(("compare", "find_leaks", "remove_leaks"), 9),
    "CausalLM": 10,
    "TokenClassification": 11,
    "QuestionAnswering": 12,
    "MaskedLM": 13,
    "Seq2Seq": 14,
}


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def sources(notebook: nbformat.NotebookNode, kind: str) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == kind]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_opening_and_closing_cells(path):
    notebook = read(path)
    opening = notebook.cells[0].source
    assert opening.startswith(f"# {path.stem[:2]} ")
    for word in ("Goal", "You will build", "Before you start", "Budget"):
        assert f"**{word}" in opening
    assert "MINUTES" not in opening
    assert "MEMORY" not in opening
    text = "\n".join(sources(notebook, "markdown"))
    for heading in ("Recap", "Pitfalls", "Exercises", "Quiz", "Next", "Sources"):
        assert re.search(rf"^## {heading}", text, re.MULTILINE), heading
    assert 'ftkit.__version__.startswith("' in sources(notebook, "code")[0]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_code_cells_are_short(path):
    lines = [source.count("\n") + 1 for source in sources(read(path), "code")]
    assert statistics.median(lines) <= 6
    assert max(lines) <= 25
    width = max(len(line) for source in sources(read(path), "code") for line in source.split("\n"))
    assert width <= 100


@pytest.mark.parametrize("path", EVERY, ids=lambda path: path.stem)
def test_outputs_are_stored_and_clean(path):
    notebook = read(path)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert any(cell.outputs for cell in code)
    for number, cell in enumerate(code, start=1):
        assert cell.execution_count == number
        assert cell.outputs or "NBVAL_CHECK_OUTPUT" not in cell.source
        assert not any(output.output_type == "error" for output in cell.outputs)
    assert "widgets" not in notebook.metadata
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) <= 500_000
    for residue in ("site-packages/ftkit", str(FOLDER.parent), "it/s]", "step/s]", "examples/s]"):
        assert residue not in text


@pytest.mark.parametrize("path", EVERY, ids=lambda path: path.stem)
def test_links_lead_somewhere(path):
    text = "\n".join(sources(read(path), "markdown"))
    for target in re.findall(r"\]\(([^)#\s]+)\)", text):
        assert target.startswith("https://") or (path.parent / target).exists(), target


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_helper_before_its_by_hand_cell(path):
    number = int(path.stem[:2])
    code = "\n".join(sources(read(path), "code"))
    used = set(re.findall(r"\bftkit\.(\w+)\(", code))
    assert used <= set(ftkit.__all__) | {"LeakWarning"}
    early = {name for name in used if BY_HAND.get(name, 0) > number}
    assert not early


def minutes(notebook: nbformat.NotebookNode) -> tuple[int, int, int]:
    """Return the learner's minutes: 150 words or 10 lines of code each, and the exercises' own."""
    text, code = ("\n".join(sources(notebook, kind)) for kind in ("markdown", "code"))
    lines = sum(bool(line.strip()) for line in code.split("\n"))
    exercises = sum(map(int, re.findall(r"\(★+, (\d+) minutes\)", text)))
    return round(len(text.split()) / 150), round(lines / 10), exercises


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_budget_states_the_learners_minutes(path):
    notebook = read(path)
    found = re.search(
        r"your time \| about (\d+) minutes: (\d+) .* (\d+) .* (\d+) ", notebook.cells[0].source
    )
    if found is None:
        assert path.stem[:2] != "04"  # the others do not say it yet
        return
    total, *parts = map(int, found.groups())
    assert abs(total - sum(parts)) < 5
    for stated, counted in zip(parts, minutes(notebook), strict=True):
        assert abs(stated - counted) <= 1


def test_contributing_holds_the_table_of_helpers():
    rows = (FOLDER.parent / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()
    table = {}
    for row in rows:
        if re.match(r"\| `.*\| \d+ \|$", row):
            names, number = row.strip("|").split("|")
            table.update(dict.fromkeys(re.findall(r"`(\w+)`", names), int(number)))
    assert table == BY_HAND


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_exercises_have_checks_solutions_and_a_quiz(path):
    code = "\n".join(sources(read(path), "code"))
    assert f'checks.quiz("{path.stem[:2]}")' in code
    assert bundled(f"quiz/{path.stem[:2]}.json").is_file()
    checked = set(re.findall(r"^checks\.(\w+\.\w+)\(", code, re.MULTILINE))
    assert 3 <= len(checked) <= 6
    solved = "\n".join(sources(read(FOLDER / "solutions" / path.name), "code"))
    assert checked == set(re.findall(r"^checks\.(\w+\.\w+)\(", solved, re.MULTILINE))


@pytest.mark.parametrize("path", EVERY, ids=lambda path: path.stem)
def test_code_parses_and_imports_no_bare_helper(path):
    for source in sources(read(path), "code"):
        plain = re.sub(r"(?m)^\s*(\w+ = )?[!%].*$", "", source)  # shell lines and magics
        for node in ast.walk(ast.parse(plain)):
            if isinstance(node, ast.ImportFrom) and node.module == "ftkit":
                assert {alias.name for alias in node.names} <= {"checks", "plots"}


@pytest.mark.parametrize(
    "path", sorted((FOLDER / "solutions").glob("*.ipynb")), ids=lambda p: p.stem
)
def test_solutions_are_right(path):
    verdicts = [
        output.data["text/plain"]
        for cell in read(path).cells
        if cell.cell_type == "code" and re.search(r"^checks\.\w+\.\w+\(", cell.source, re.MULTILINE)
        for output in cell.outputs
        if output.output_type == "execute_result"
    ]
    assert verdicts
    assert all(verdict.startswith("✓ right") for verdict in verdicts)
