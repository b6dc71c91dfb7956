"""Write what the README shows of the study: a table and a figure, both from the recorded file.

Run ``python -m tests.benchmarks.report``.
"""

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from ftkit import plots
from ftkit.paths import bundled

README = Path(__file__).parent.parent.parent / "README.md"
FIGURE = bundled("results/tuning_methods.svg")
START, END = "<!-- study: start -->", "<!-- study: end -->"


def read_study() -> dict[str, Any]:
    """Return the recorded study of tuning methods."""
    return json.loads(bundled("results/tuning_methods.json").read_text(encoding="utf-8"))


def table(study: dict[str, Any]) -> str:
    """Return the study as a Markdown table: means over seeds, with their 95 % intervals."""
    seeds = [run["seed"] for run in next(iter(study["methods"].values()))["runs"]]
    lines = [
        f"Means over {len(seeds)} seeds, with intervals by bootstrap over the runs.",
        "",
        "| method | test accuracy | 95 % interval | F1 | parameters | CPU seconds | MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, method in study["methods"].items():
        columns = {key: [run[key] for run in method["runs"]] for key in method["runs"][0]}
        low, high = plots.mean_interval(columns["accuracy"])
        lines.append(
            f"| {name} | {np.mean(columns['accuracy']):.3f} | {low:.3f}–{high:.3f} | "
            f"{np.mean(columns['f1']):.3f} | {columns['trainable_parameters'][0]:,} | "
            f"{np.median(columns['seconds']):.0f} | {np.median(columns['peak_memory_mib']):.0f} |"
        )
    return "\n".join(lines)


def draw(study: dict[str, Any]) -> None:
    """Draw every run and every mean into the figure's file."""
    plots.use_style()
    plt.rcParams["svg.hashsalt"] = "ftkit"  # the same bytes on every run
    runs = {n: [run["accuracy"] for run in m["runs"]] for n, m in study["methods"].items()}
    ax = plots.intervals(runs)
    ax.set_title("Eight ways to learn paraphrase, the same seeds each")
    ax.figure.savefig(FIGURE, metadata={"Date": None})


SPEED_START, SPEED_END = "<!-- speed: start -->", "<!-- speed: end -->"


def speed_table() -> str:
    """Return the recorded speeds as a Markdown table."""
    results = json.loads(bundled("results/training.json").read_text(encoding="utf-8"))
    lines = [
        "| trained | epochs | rival | rows a second | peak MiB | ftkit is faster by |",
        "|---|---|---|---|---|---|",
    ]
    for entry in results.values():
        for name, run in entry["medians"].items():
            ratio = f"{entry['ratios'][name]:.2f} ×" if name in entry["ratios"] else ""
            lines.append(
                f"| {entry['tune']} | {entry['epochs']} | {name} | "
                f"{run['examples_per_second']:.1f} | {run['peak_mib']:.0f} | {ratio} |"
            )
    entry = next(iter(results.values()))
    machine = f"{entry['device']}, threads: {entry['threads']}"
    lines += ["", f"{machine}; {entry['rows']} rows of MRPC in batches of {entry['batch_size']}."]
    return "\n".join(lines)


TASKS_START, TASKS_END = "<!-- tasks: start -->", "<!-- tasks: end -->"


def tasks_table() -> str:
    """Return the recorded scores of every task and of its baseline as a Markdown table."""
    results = json.loads(bundled("results/tasks.json").read_text(encoding="utf-8"))
    lines = ["| task | data | score | fine-tuned | baseline |", "|---|---|---|---|---|"]
    for name, entry in results.items():
        (_, tuned), (called, floor) = entry["scores"].items()
        cells = [f"{v:.3g} [{low:.3g}, {high:.3g}]" for v, low, high in (tuned, floor)]
        row = (f"`{name}`", entry["data"], entry["metric"], cells[0], f"{cells[1]}, {called}")
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def replace_between(text: str, start: str, end: str, new: str) -> str:
    """Put new text between two marks."""
    before, _, rest = text.partition(start)
    _, _, after = rest.partition(end)
    return f"{before}{start}\n{new}\n{end}{after}"


def main() -> None:
    """Rewrite the tables in the README, and the figure."""
    study = read_study()
    text = replace_between(README.read_text(encoding="utf-8"), START, END, table(study))
    text = replace_between(text, SPEED_START, SPEED_END, speed_table())
    text = replace_between(text, TASKS_START, TASKS_END, tasks_table())
    README.write_text(text, encoding="utf-8")
    draw(study)


if __name__ == "__main__":
    main()
