"""Write a saved model in another format, once another reader has shown that it is the same."""

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftkit.atomic import check_can_be_made, complete_or_invisible, files_complete_or_invisible
from ftkit.errors import FtkitError, closest

if TYPE_CHECKING:
    from ftkit.export.proof import Proof

FORMATS = {  # name, which is its module's too: how its file ends
    "merged": "",
    "gguf": ".gguf",
    "onnx": ".onnx",
}
GGUF_TYPES = ("f16", "q8_0", "q4_1")
NUMBERS = "export.json"  # beside the export: what was measured of each file


def export(
    model: str | Path,
    output: str | Path,
    *,
    to: str,
    type: str | None = None,
    texts: Sequence[str] | None = None,
    overwrite: bool = False,
) -> "Proof":
    """Write a saved model in another format, load it again with another reader, and compare.

    An export that is too far from its model is refused, and nothing of it remains; so is one that
    is not clearly nearer to the trained model than to the checkpoint which training began with,
    where the folder's ``training.json`` names it. The numbers are kept in ``export.json``.

    Parameters
    ----------
    model : str or Path
        A folder that `save_pretrained` wrote, a folder with a LoRA adapter of peft, or any language
        model that `load_pretrained` finds.
    output : str or Path
        For ``"merged"`` a new folder; else a file, such as ``model.gguf``. Another name is a folder
        for ``model.gguf`` or ``model.onnx``.
    to : {"merged", "gguf", "onnx"}
        ``"merged"``: a plain folder of transformers, LoRA added to the weights. ``"gguf"``: the
        Llama family for llama.cpp and Ollama, with a Modelfile; read again by transformers.
        ``"onnx"``: the tasks of encoders; read again by onnxruntime.
    type : {"f16", "q8_0", "q4_1"}, optional
        How GGUF keeps the matrices: in 16, about 8.5 or 5 bits a weight; by default ``"q8_0"``.
    texts : sequence of str, optional
        What both are compared on; by default 32 bundled stories' beginnings. Better are texts of
        the kind that the model was trained for.
    overwrite : bool
        Replace what stands at `output`.

    Returns
    -------
    Proof
        The numbers; printed, a small table.

    Raises
    ------
    FtkitError
        An unknown format or type, a model that the format cannot hold, an output that exists, or
        an export that is refused.

    Examples
    --------
    >>> export("model", "model.gguf", to="gguf", type="q8_0")  # doctest: +SKIP
    """
    kind = _check_names(to, type)
    target = Path(output)
    if FORMATS[to] and target.suffix != FORMATS[to]:
        target = target / f"model{FORMATS[to]}"
    _check_output(target, to, overwrite)
    from ftkit.export.proof import proof_rows, prove
    from ftkit.export.source import open_model

    form: Any = import_module(f"ftkit.export.{to}")
    source = open_model(model)
    form.check(source)
    rows = proof_rows(source, texts)
    place = files_complete_or_invisible if FORMATS[to] else complete_or_invisible
    try:
        with place(target) as folder:
            path = folder / target.name if FORMATS[to] else folder
            notes = form.write(source, path, kind)
            reader, exported, weights = form.read(path, source, rows)
            told = {"format": to, "type": kind, "reader": reader, "weights": weights}
            proof = prove(
                *(source, rows, exported, form.BOUNDS[kind]),
                told={**told, "notes": notes},
                compare_untouched=form.COMPARE_UNTOUCHED,
            )
            _keep_numbers(folder / NUMBERS, target, proof)
    except OSError as error:
        raise FtkitError(f"{target}: could not be written: {error}.") from error
    return proof


def _check_names(to: str, kind: str | None) -> str | None:
    """Return the type to write, once format and type are known to fit."""
    if to not in FORMATS:
        raise FtkitError(f'Unknown format "{to}". {closest(to, FORMATS)}')
    if to != "gguf":
        if kind:
            raise FtkitError(f'type "{kind}" says nothing to the format {to}; leave it out.')
        return None
    kind = kind or "q8_0"
    if kind not in GGUF_TYPES:
        raise FtkitError(f'Unknown type "{kind}". {closest(kind, GGUF_TYPES)}')
    return kind


def _check_output(target: Path, to: str, overwrite: bool) -> None:
    """Raise `FtkitError` where the export cannot be written, or would destroy something."""
    check_can_be_made(target)
    if target.is_dir() and FORMATS[to]:
        raise FtkitError(f"{target} is a folder; expected the name of a file.")
    if to == "merged" and overwrite and target.exists() and not (target / NUMBERS).is_file():
        raise FtkitError(
            f"{target} was not written by ftkit export (it holds no {NUMBERS}), so it is not "
            f"overwritten. Choose another output."
        )
    if target.exists() and not overwrite:
        raise FtkitError(f"{target} exists. Choose another output, or say --overwrite.")
    beside = target.with_name("Modelfile")
    if to == "gguf" and beside.exists() and not overwrite and not _is_ours(beside):
        raise FtkitError(f"{beside} exists. Choose another folder, or say --overwrite.")


def _is_ours(path: Path) -> bool:
    from ftkit.export.modelfile import MADE_BY

    return path.read_text(encoding="utf-8", errors="replace").startswith(MADE_BY)


def _keep_numbers(path: Path, target: Path, proof: "Proof") -> None:
    """Write the proof under the file's name, beside those of other files in the same folder."""
    there = target.with_name(NUMBERS) if FORMATS[proof.format] else None
    try:
        kept = json.loads(there.read_text(encoding="utf-8")) if there and there.exists() else {}
    except ValueError as error:
        raise FtkitError(f"{there}: not JSON: {error}. Choose another folder.") from error
    kept = {**kept, target.name: proof.to_dict()}
    path.write_text(json.dumps(kept, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
