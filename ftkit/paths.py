"""Where things lie: what comes with the course, and what a run writes."""

from pathlib import Path

TASK_FILE = "task.json"  # in the folder of a saved model
CHECKPOINTS = "checkpoints"  # the folder of a run's checkpoints, below its output
TRAINING_LOG = "training.jsonl"  # beside them: a line an update, a line a validation


def bundled(name: str = "") -> Path:
    """Return the path of something in the course's ``data`` folder.

    Examples
    --------
    >>> bundled("paraphrase").is_dir()
    True
    """
    installed = Path(__file__).parent / "bundled"
    return (installed if installed.is_dir() else Path(__file__).parent.parent / "data") / name


def bundled_names() -> list[str]:
    """List the bundled data sets by name."""
    return sorted(path.parent.name for path in bundled().glob("*/train.*"))
