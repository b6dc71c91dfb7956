"""Run the course's notebooks top to bottom and write each one as readable HTML."""

import base64
import io
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from latex2mathml.converter import convert as to_mathml
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from PIL import Image

from ftkit.devices import process_peak_mib
from ftkit.errors import FtkitError, closest
from ftkit.paths import bundled

CELL_TIMEOUT_SECONDS = 300
QUIET: dict[str, str] = dict.fromkeys(  # progress bars leave residue in a notebook
    ("TQDM_DISABLE", "HF_DATASETS_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_PROGRESS_BARS"), "1"
)
VOLATILE = ("execution", "ExecuteTime", "collapsed", "scrolled")  # of a run or a window
WIDGET = "application/vnd.jupyter.widget-view+json"
MATH = re.compile(r"\$\$(.+?)\$\$|(?<![\\$\w])\$([^\s$](?:[^$\n]*[^\s$\\])?)\$(?!\w)", re.DOTALL)
PLACE = re.compile(r"formula⟨(\d+)⟩")
CODE = re.compile(r"(```.*?```|`[^`\n]+`)", re.DOTALL)


@dataclass(frozen=True)
class Run:
    """One notebook that was run: its name, seconds, peak memory of its kernel in MiB, and error."""

    name: str
    seconds: float
    peak_mib: float
    error: str | None


def notebooks_folder() -> Path:
    """Return the folder of the course's notebooks, in a checkout or in the installed package."""
    checkout = Path(__file__).parents[2] / "notebooks"
    return checkout if checkout.is_dir() else bundled("notebooks")


def find_notebooks(names: list[str]) -> list[Path]:
    """Return the notebooks of the given names or numbers (``"05"``), or else all in their order.

    Raises
    ------
    FtkitError
        A name that fits no notebook.
    """
    known = {path.stem: path for path in sorted(notebooks_folder().glob("[0-9]*.ipynb"))}
    chosen = []
    for name in names:
        stem = Path(name).stem
        fits = [path for key, path in known.items() if stem in (key, key.split("_")[0])]
        if not fits:
            raise FtkitError(f'No notebook "{name}". {closest(stem, known)}')
        chosen += fits
    return chosen or list(known.values())


def run_course(paths: list[Path], output_dir: Path, *, update: bool = False) -> Iterator[Run]:
    """Run notebooks one by one and write ``NAME.html`` for each, also where a cell fails.

    Parameters
    ----------
    paths : list of Path
    output_dir : Path
        Made where it is missing.
    update : bool
        Write the outputs back into the notebooks too.

    Yields
    ------
    Run
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    os.environ.update(QUIET)
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        start = time.perf_counter()
        peak, error = _execute(notebook, path.parent)
        seconds = time.perf_counter() - start
        notebook = tidy(notebook)
        html = to_html(notebook, path.stem)
        (output_dir / f"{path.stem}.html").write_text(html, encoding="utf-8")
        if update and error is None:
            path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
        yield Run(path.stem, seconds, peak, error)


def _execute(notebook: NotebookNode, folder: Path) -> tuple[float, str | None]:
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=CELL_TIMEOUT_SECONDS, resources=resources)
    peak = 0.0
    try:
        with client.setup_kernel(transport_encryption="auto"):
            for index, cell in enumerate(notebook.cells):
                client.execute_cell(cell, index)
            peak = process_peak_mib(client.km.provisioner.pid)  # type: ignore[union-attr]
    except CellExecutionError as error:
        return peak, f"{error.ename}: {error.evalue}"
    except (CellTimeoutError, DeadKernelError) as error:
        return peak, str(error).strip().splitlines()[0]
    return peak, None


def tidy(notebook: NotebookNode) -> NotebookNode:
    """Drop what changes from run to run and tells nothing: progress bars, paths, times.

    A cell keeps its id and its other metadata, such as tags, alt texts, slides and points.
    """
    runs = 0
    for cell in notebook.cells:
        for key in VOLATILE:
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            runs += 1
            cell.execution_count = runs  # nbval takes outputs without a count for left-overs
            cell.outputs = _merge_streams([o for o in cell.outputs if not _is_progress_bar(o)])
            for output in cell.outputs:
                output.get("metadata", {}).clear()
                if "image/png" in output.get("data", {}):
                    output.data["image/png"] = _smaller_png(output.data["image/png"])
                if output.output_type == "execute_result":
                    output.execution_count = runs
                if output.output_type == "stream":
                    output.text = _without_paths(output.text)
    notebook.metadata = NotebookNode(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    return notebook


def _is_progress_bar(output: NotebookNode) -> bool:
    """Say whether this is tqdm's bar for notebooks, which takes no notice of TQDM_DISABLE."""
    data = output.get("data", {})
    return WIDGET in data and "%|" in data.get("text/plain", "")


def _smaller_png(data: str) -> str:
    """Store a figure with 128 colours, a third of its size; no eye sees the difference."""
    image = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
    file = io.BytesIO()
    image.quantize(128).save(file, format="PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def _merge_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join neighbouring pieces of one stream: where a print is cut is chance."""
    merged: list[NotebookNode] = []
    for output in outputs:
        last = merged[-1] if merged else None
        if last and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            merged.append(output)
    return merged


def _without_paths(text: str) -> str:
    """Shorten this machine's folders, which a library's warning may name, to dots."""
    for folder in (sys.prefix, str(Path(__file__).parents[2])):
        text = text.replace(folder, "…")
    return text


def to_html(notebook: NotebookNode, title: str) -> str:
    """Return a page that needs no network: formulas as MathML, no scripts from elsewhere."""
    formulas: list[str] = []
    page: Any = nbformat.from_dict({**notebook, "cells": [NotebookNode(c) for c in notebook.cells]})
    for cell in page.cells:
        if cell.cell_type == "markdown":
            cell.source = take_formulas(cell.source, formulas)
    exporter = HTMLExporter(
        require_js_url="", jquery_url="", mathjax_url="", mermaid_js_url="", embed_images=True
    )
    html, _ = exporter.from_notebook_node(page, {"metadata": {"name": title}})
    return PLACE.sub(lambda match: formulas[int(match.group(1))], html)


def take_formulas(markdown: str, formulas: list[str]) -> str:
    """Move each ``$…$`` and ``$$…$$`` outside code into the list, as MathML; leave its number.

    The numbers survive the way from Markdown to HTML, which MathML does not.

    Examples
    --------
    >>> formulas = []
    >>> take_formulas("`$x$` is code, $y$ is not", formulas)
    '`$x$` is code, formula⟨0⟩ is not'
    """

    def convert(match: re.Match[str]) -> str:
        block, inline = match.groups()
        formulas.append(to_mathml(block or inline, display="block" if block else "inline"))
        return f"formula⟨{len(formulas) - 1}⟩"

    parts = CODE.split(markdown)
    return "".join(part if i % 2 else MATH.sub(convert, part) for i, part in enumerate(parts))
