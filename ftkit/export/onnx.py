"""Write an encoder with its head as ONNX, which runs without torch."""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import nn

from ftkit.data.batches import Batch, collate
from ftkit.errors import FtkitError
from ftkit.export.proof import SPAN, Answer, Bounds, proof_rows
from ftkit.export.source import Source

try:
    import onnx  # noqa: F401  # what torch.onnx writes with
    import onnxruntime
    import onnxscript  # noqa: F401  # what torch.onnx writes with
except ModuleNotFoundError as error:
    raise FtkitError(f'{error.name} is missing: pip install "ftkit[onnx]"') from error

TASKS = ("sequence-classification", "token-classification", "question-answering", "masked-lm")
BOUNDS = {None: Bounds(weights=None, kl=1e-6, agreement=0.99)}  # float32 throughout
COMPARE_UNTOUCHED = False


class _Logits(nn.Module):
    """A model whose inputs stand in a row and whose outputs are logits only."""

    def __init__(self, model: nn.Module, inputs: list[str], outputs: list[str]) -> None:
        super().__init__()
        self.model, self.inputs, self.outputs = model, inputs, outputs

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = self.model(**dict(zip(self.inputs, tensors, strict=True)))
        return tuple(found[name] for name in self.outputs)


def check(source: Source) -> None:
    """Raise `FtkitError` unless the task is one of an encoder."""
    if source.task.name not in TASKS:
        raise FtkitError(
            f"ONNX is written for the tasks of encoders ({', '.join(TASKS)}), and this model was "
            f"trained for {source.task.name}. A language model of the Llama family: --to gguf."
        )


def write(source: Source, path: Path, kind: None) -> list[str]:
    """Write the graph from token ids to logits, for batches and texts of any length.

    Its metadata hold the task as JSON, with the labels' names.
    """
    model: Any = source.model
    rows = proof_rows(source, ["a first text", "and a second one, which is longer"])
    batch = collate(rows, range(len(rows)), model.config.pad_token_id)
    with torch.inference_mode():
        found = model(**batch)
    outputs = [name for name in ("logits", *SPAN) if name in found]
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of one part of torch to another
        warnings.filterwarnings("ignore", "# The axis name")  # inputs share their axes, as meant
        program = torch.onnx.export(
            _Logits(model, list(batch), outputs).eval(),
            tuple(batch.values()),
            dynamo=True,
            dynamic_shapes=((axes,) * len(batch),),
            input_names=list(batch),
            output_names=outputs,
            verbose=False,
        )
    assert program is not None  # as it is only where a path is given
    program.model.metadata_props["task"] = json.dumps(source.task.to_dict(), ensure_ascii=False)
    program.save(path, external_data=False)
    return []


def read(path: Path, source: Source, rows: Dataset) -> tuple[str, Answer, None]:
    """Load the file by onnxruntime; see `ftkit.export.gguf.read`."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs = [node.name for node in session.get_inputs()]
    outputs = [node.name for node in session.get_outputs()]

    def answer(batch: Batch) -> dict[str, Any]:
        found = session.run(outputs, {name: batch[name].numpy() for name in inputs})
        return dict(zip(outputs, found, strict=True))

    return f"onnxruntime {onnxruntime.__version__}", answer, None
