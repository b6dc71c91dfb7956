"""Running notebooks: HTML without scripts from elsewhere, failures told, outputs tidied."""

import nbformat
import pytest

import ftkit
from ftkit.cli import notebooks as course
from ftkit.cli.main import main

BAR = "from tqdm.notebook import tqdm; print(sum(tqdm(range(3))))"


@pytest.fixture
def notebooks(tmp_path, monkeypatch):
    """Two small notebooks, the second of which fails."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    cells = {
        "00_fine": [
            "# Fine, $x^2$ and `$y$`",
            "print(6 * 7)",
            "import sys; print(sys.prefix)",
            BAR,
        ],
        "01_fails": ["# Fails", "1 / 0"],
    }
    for name, (text, *code) in cells.items():
        new = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_markdown_cell(text), *map(nbformat.v4.new_code_cell, code)]
        )
        nbformat.write(new, folder / f"{name}.ipynb")
    monkeypatch.setattr(course, "notebooks_folder", lambda: folder)
    return folder


def test_one_line_a_notebook_and_status_1_where_one_fails(notebooks, tmp_path, capfd):
    before = (notebooks / "00_fine.ipynb").read_bytes()
    assert main(["course", "--output", str(tmp_path / "html")]) == 1
    said, complaints = capfd.readouterr()
    assert complaints == ""  # the kernels' too
    lines = said.splitlines()
    assert lines[0].split()[0] == "00_fine"
    assert lines[0].endswith("MiB  ok")
    assert lines[1].endswith("ZeroDivisionError: division by zero")
    assert lines[2].startswith("2 notebooks in ")
    assert "1 failed" in lines[2]
    html = (tmp_path / "html" / "00_fine.html").read_text(encoding="utf-8")
    assert ">42\n</pre>" in html
    assert "<msup><mi>x</mi><mn>2</mn></msup>" in html
    assert "<code>$y$</code>" in html
    assert 'src="http' not in html
    assert "ZeroDivisionError" in (tmp_path / "html" / "01_fails.html").read_text(encoding="utf-8")
    assert (notebooks / "00_fine.ipynb").read_bytes() == before


def test_updating_writes_tidy_outputs(notebooks, tmp_path):
    assert main(["course", "0", "--output", str(tmp_path)]) == 2
    assert main(["course", "00", "--update", "--output", str(tmp_path)]) == 0
    cells = nbformat.read(notebooks / "00_fine.ipynb", as_version=4).cells
    assert cells[1].outputs[0].text == "42\n"
    assert [cell.execution_count for cell in cells[1:]] == [1, 2, 3]
    assert cells[2].outputs[0].text == "…\n"
    assert [output.text for output in cells[3].outputs] == ["3\n"]


def test_updating_keeps_ids_and_metadata(notebooks, tmp_path):
    path = notebooks / "00_fine.ipynb"
    notebook = nbformat.read(path, as_version=4)
    kept = {"alt": "a line that falls", "slideshow": {"slide_type": "skip"}, "tags": ["long"]}
    notebook.cells[1].metadata.update(**kept, execution={"iopub.status.busy": "now"})
    ids = [cell.id for cell in notebook.cells]
    nbformat.write(notebook, path)
    assert main(["course", "00", "--update", "--output", str(tmp_path)]) == 0
    cells = nbformat.read(path, as_version=4).cells
    assert [cell.id for cell in cells] == ids
    assert cells[1].metadata == kept


def test_unknown_notebooks_get_the_closest_name(notebooks):
    with pytest.raises(ftkit.FtkitError, match='^No notebook "00_fin". Did you mean "00_fine"'):
        course.find_notebooks(["00_fin"])


def test_prices_are_no_formulas():
    formulas: list[str] = []
    text = "It costs $5 or $6, `$a$` and\n```\n$b$\n```"
    assert course.take_formulas(text, formulas) == text
    assert course.take_formulas("so $a + b$ holds", formulas) == "so formula⟨0⟩ holds"
    course.take_formulas("$$\n\\frac{a}{b}\n$$", formulas)
    assert "<mfrac><mrow><mi>a</mi></mrow><mrow><mi>b</mi></mrow></mfrac>" in formulas[1]
    assert 'display="block"' in formulas[1]
