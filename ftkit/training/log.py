"""What a run writes while it goes on: a line an update and a line a validation, for any reader."""

import json
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from ftkit.errors import FtkitError, StoppedError
from ftkit.models.saving import TASK_FILE
from ftkit.paths import CHECKPOINTS, TRAINING_LOG
from ftkit.training import distributed
from ftkit.training.config import TrainingConfig


def describe(metrics: dict[str, float]) -> str:
    """Return an epoch's metrics as one line.

    Examples
    --------
    >>> describe({"epoch": 2, "accuracy": 0.81234, "loss": 0.4})
    'epoch 2: accuracy 0.8123, loss 0.4'
    """
    shown = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items() if name != "epoch")
    return f"epoch {metrics['epoch']}: {shown}"


class TrainingLog:
    """Writes a history to ``training.jsonl`` as it grows, and to TensorBoard where asked to.

    The first process writes; all that a resumed run had done before is written again, so that the
    file holds every step once. Numbers that are not finite are null. Where a run ends in an error
    before its first checkpoint, the file goes.

    Parameters
    ----------
    folder : Path or None
        Made with the first line; without one, there is no file. In the folder of a finished model,
        which a new run replaces at its end, the file stands among the checkpoints.
    config : TrainingConfig
        ``report_to="tensorboard"`` writes events to ``runs/NAME`` beside a folder called NAME.

    Raises
    ------
    FtkitError
        TensorBoard is not installed.
    """

    def __init__(self, folder: Path | None, config: TrainingConfig) -> None:
        first = distributed.get_rank() == 0
        self.path: Path | None = None
        if folder and first:
            kept = folder / CHECKPOINTS if (folder / TASK_FILE).is_file() else folder
            self.path, self.checkpoints = kept / TRAINING_LOG, folder / CHECKPOINTS
            self.made = [above for above in (kept, *kept.parents) if not above.exists()]
        self.n_steps = self.n_evaluations = self.step = 0  # written so far
        self.board: Any = None
        if config.report_to == "tensorboard" and first:
            self.board = _summary_writer(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> None:
        if self.board:
            self.board.close()
        failed = isinstance(error, FtkitError) and not isinstance(error, StoppedError)
        if failed and self.path and not list(self.checkpoints.glob("step-*")):
            self.path.unlink(missing_ok=True)
            for folder in self.made:
                with suppress(OSError):  # something else is in it
                    folder.rmdir()

    def write(self, history: Any) -> None:
        """Write whatever a history holds that is not written yet."""
        if not (self.path or self.board):
            return
        begins = self.n_steps == 0
        lines = list(self._new_lines(history))
        for line in lines if self.board else ():
            for name, value in line.items():
                if name not in ("step", "epoch") and value is not None:
                    kind = "eval/" if name.startswith("eval_") else "train/"
                    self.board.add_scalar(kind + name.removeprefix("eval_"), value, line["step"])
        if self.path:
            _write(self.path, lines, "w" if begins else "a")

    def _new_lines(self, history: Any) -> Iterator[dict[str, Any]]:
        for step in history.steps[self.n_steps :]:
            yield from self._evaluations(history, before=step.epoch)
            self.step, self.n_steps = step.step, self.n_steps + 1
            yield _finite(asdict(step))
        yield from self._evaluations(history, before=math.inf)

    def _evaluations(self, history: Any, before: float) -> Iterator[dict[str, Any]]:
        for metrics in history.evaluations[self.n_evaluations :]:
            if metrics["epoch"] >= before:
                return
            self.n_evaluations += 1
            scores = {f"eval_{name}": v for name, v in metrics.items() if name != "epoch"}
            yield _finite({"step": self.step, "epoch": metrics["epoch"], **scores})


def write_log(path: Path, history: Any) -> None:
    """Write the whole of a history as lines."""
    _write(path, list(TrainingLog(None, TrainingConfig())._new_lines(history)), "w")


def _write(path: Path, lines: list[dict[str, Any]], mode: str) -> None:
    text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open(mode, encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise FtkitError(f"{path}: could not be written: {error}.") from error


def _finite(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value if math.isfinite(value) else None for name, value in line.items()}


def _summary_writer(folder: Path | None) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise FtkitError(
            'report_to is "tensorboard", which is not installed: pip install tensorboard, or leave '
            "it out."
        ) from error
    return SummaryWriter(str(folder.parent / "runs" / folder.name) if folder else None)
