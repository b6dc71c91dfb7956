"""Whatever comes in ends in success or in an `FtkitError` that says something; nothing else.

The normal run draws the same 500 inputs each time. ``FTKIT_FUZZ_EXAMPLES=10000`` draws that many,
others each time.
"""

import contextlib
import copy as copying
import hashlib
import io
import json
import math
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, DatasetDict
from hypothesis import HealthCheck, example, given, settings
from safetensors.torch import save
from transformers import BertForSequenceClassification

import ftkit
from ftkit.cli.main import main
from ftkit.data.files import read_table
from ftkit.training.checkpoints import (
    CheckpointWarning,
    newest_checkpoint,
    write_checkpoint,
)
from ftkit.training.state import describe_columns
from tests import fuzzing
from tests.conftest import tiny_config, write_csv
from tests.fuzzing import BYTES, FOLDER, GONE, GOOD, ROWS, as_jsonl, set_tensor, set_value, swap

NORMAL = 500  # inputs of a normal run, all tests together
EXAMPLES = int(os.environ.get("FTKIT_FUZZ_EXAMPLES", NORMAL))
pytestmark = pytest.mark.timeout(600 + EXAMPLES)  # what hangs is ended by pytest-timeout


def fuzz(share: int) -> settings:
    """Return the settings of a test that draws so many of the normal run's inputs."""
    return settings(
        max_examples=math.ceil(share * EXAMPLES / NORMAL),
        derandomize=EXAMPLES == NORMAL,
        database=None,
        deadline=timedelta(seconds=60),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        print_blob=True,
    )


def examples(*inputs: Any) -> Callable[[Any], Any]:
    """Return a decorator that adds inputs which went wrong once."""

    def decorate(test: Any) -> Any:
        for one in reversed(inputs):
            test = example(one)(test)
        return test

    return decorate


@pytest.fixture(autouse=True, scope="module")
def offline() -> Iterator[None]:
    """A name that looks like a hub id is looked up nowhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield


@contextlib.contextmanager
def own_folder() -> Iterator[Path]:
    """A folder for one input."""
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # no waiting for a disk
    with tempfile.TemporaryDirectory(prefix="fuzz ", dir=memory) as name:
        yield Path(name)


def listing(folder: Path) -> dict[str, str]:
    """Return what stands below a folder: path → its kind and a hash of the content."""
    found = {}
    for path in folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        kind = "link" if path.is_symlink() else "folder" if path.is_dir() else "file"
        found[str(path)] = kind + hashlib.sha256(content).hexdigest()
    return found


def ends_well(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Return what a call returns, or None where it raises an `FtkitError` that says something."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return call(*args, **options)
        except ftkit.FtkitError as error:
            said = str(error)
    assert said.strip()
    return None


# ------------------------------------------------------------------------------- sources of rows


def prepare(source: Path | str, tokenizer: Any) -> None:
    """Load and encode as ``ftkit train`` does, the columns guessed or else the first and last."""
    splits = ends_well(ftkit.load_splits, source)
    if splits is None:
        return
    for split in splits.values():
        assert len(split) > 0
        assert all(isinstance(where, str) for where in split["row"])
    columns = [name for name in next(iter(splits.values())).column_names if name != "row"]
    for given_columns in ((None, None), ([columns[0]], columns[-1])):
        task = ends_well(ftkit.SequenceClassification.infer, splits, *given_columns)
        if task is not None:
            ends_well(task.encode, splits, tokenizer)


def prepare_folder(files: dict[str, bytes | None], tokenizer: Any) -> None:
    """Load a folder of files, and each of them alone."""
    with own_folder() as folder:
        for name, content in files.items():
            if content is FOLDER:
                (folder / name).mkdir()
            else:
                (folder / name).write_bytes(content)
        prepare(folder, tokenizer)
        for name in files:
            prepare(folder / name, tokenizer)
        assert sorted(os.listdir(folder)) == sorted(files)


@fuzz(200)
@given(file=fuzzing.files)
@examples(
    (".csv", b"te\0xt,label\nfine,good\n"),
    (".tsv", b"text\tlab\0el\nfine\tgood\n"),
    (".jsonl", b'{"text": "\\ud800", "label": "x"}\n'),
    (".jsonl", b'{"text\\ud800": "a"}\n'),
    (".jsonl", b'{"text": "a", "label": ' + b"9" * 5000 + b"}\n"),
    (".jsonl", b'{"text": "a", "label": ' + b"[" * 10**5 + b"}\n"),
    (".jsonl", b'{"text": "a", "label": 18446744073709551616}\n'),
    (".jsonl", b'{"text": "a", "label": ["x"]}\n{"text": "b", "label": []}\n'),
    (".parquet", fuzzing.as_parquet({"text": fuzzing.BROKEN_UTF8})),
)
def test_a_file(tokenizer, file):
    suffix, content = file
    prepare_folder({f"train{suffix}": content}, tokenizer)


@pytest.mark.parametrize("column", fuzzing.ARROW_COLUMNS, ids=lambda column: str(column.type))
def test_every_kind_of_column_in_parquet(tokenizer, column):
    for others in ({"text": column, "label": ["x", "y"]}, {"text": ["a", "b"], "label": column}):
        prepare_folder({"train.parquet": fuzzing.as_parquet(others)}, tokenizer)


@fuzz(30)
@given(files=fuzzing.folders)
@examples({"train.csv": FOLDER}, {f"{BYTES}.csv": GOOD[".csv"]})
def test_a_folder_of_odd_files(tokenizer, files):
    prepare_folder(files, tokenizer)


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"])
def test_a_line_separator_within_json_is_text(tmp_path, separator):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"text": "one{separator}row"}}\n{{"text": "two"}}\n', encoding="utf-8")
    assert read_table(path)["row"][1] == "a.jsonl, row 2"


@fuzz(40)
@given(source=fuzzing.paths)
@examples("x" * 300)
def test_the_name_of_a_source(source):
    with own_folder() as folder, contextlib.chdir(folder):
        Path("data.csv").write_bytes(GOOD[".csv"])
        for name in ("loop", "loop.csv"):
            Path(name).symlink_to(name)
        ends_well(ftkit.load_splits, source)
        assert sorted(os.listdir()) == ["data.csv", "loop", "loop.csv"]


# ------------------------------------------------------------------------------- the command line


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory) -> Path:
    """Data of many kinds, and outputs that are there already."""
    folder = tmp_path_factory.mktemp("surroundings")
    rows = [*ROWS[:6], *ROWS[8:14]]
    write_csv(folder / "data.csv", rows)
    shutil.copy(folder / "data.csv", folder / f"{BYTES}.csv")
    for split in ("train", "validation", "test"):
        write_csv(folder / "my data ü" / f"{split}.csv", rows)
    write_csv(folder / "only train" / "train.csv", rows)
    write_csv(folder / "no train" / "test.csv", rows)
    write_csv(folder / "one class.csv", rows[:6] * 2)
    write_csv(folder / "classes.csv", [{"text": f"a {i}", "label": f"c{i}"} for i in range(1500)])
    write_csv(folder / "classes" / "train.csv", [{**row, "label": i} for i, row in enumerate(rows)])
    for name, labels in {"bool": [True, False], "none": ["a", None], "list": [["a"], []]}.items():
        lines = [{"text": f"a {i}", "label": labels[i % 2]} for i in range(12)]
        (folder / f"{name}.jsonl").write_bytes(as_jsonl(lines))
    for name in ("full", "earlier/checkpoints/step-00000001", "ended"):
        (folder / name).mkdir(parents=True)
    for name, text in {
        "file": "precious",
        "full/thesis.txt": "years",
        "ended/task.json": "{}",
    }.items():
        (folder / name).write_text(text)
    (folder / "link").symlink_to("full")
    (folder / "loop").symlink_to("loop")
    return folder


def run_train(arguments: list[str]) -> int:
    """Run ``ftkit train`` in this process; check that bad input is told on stderr."""
    told, out = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(told):
        try:
            status = ends_well(main, ["train", *arguments])
        except SystemExit as error:  # argparse
            status = error.code
    assert status in (0, 2)
    assert status == 0 or re.search(r"(^|[\r\n])ftkit(:| train:) \S", told.getvalue())
    return status


@fuzz(60)
@given(command=fuzzing.commands)
@examples(
    ("data.csv", "out", [("--tune", "top:²")]),
    ("data.csv", "out", [("--tune", "top:" + fuzzing.LONG)]),
    ("data.csv", "out", [("--layer-decay", "1e200")]),
    ("data.csv", "out", [("--seed", str(fuzzing.HUGE))]),
    *(("data.csv", output, []) for output in ("x" * 250, "x" * 300, "out\0", "/proc/out", BYTES)),
    *(("data.csv", output, []) for output in ("file/out", "loop", "loop/out")),
    *((source, "out", []) for source in (f"{BYTES}.csv", "classes.csv", "list.jsonl")),
    ("classes.csv", "out", [("--label-column", "text")]),
)
def test_train(checkpoint, surroundings, command):
    source, output, options = command
    base = ["--checkpoint", str(checkpoint), "--data", source, "--num-train-epochs=1"]
    base += ["--learning-rate=1e-3", "--batch-size=8", "--bf16=false", f"--output={output}"]
    with own_folder() as above, contextlib.chdir(above):
        folder = shutil.copytree(surroundings, above / "here", symlinks=True)
        os.chdir(folder)
        before = listing(above)
        status = run_train([*base, *(word for option in options for word in option)])
        after = listing(above)
        if status == 2 or (after == before and output.startswith("ended")):
            assert after == before
            return  # an ended run has nothing to resume
        target = Path(os.path.normpath(folder / output)).resolve()
        changed = {p for p in {*before, *after} if before.get(p) != after.get(p)}
        below = {str(path) for path in (target, *target.parents)}
        assert all(Path(p).is_relative_to(target) or p in below for p in changed), changed
        ftkit.load_saved(target)


def test_an_output_is_replaced_from_inside(checkpoint, tmp_path, monkeypatch):
    data = write_csv(tmp_path / "data.csv", ROWS)
    arguments = ["--checkpoint", str(checkpoint), "--data", str(data), "--num-train-epochs=1"]
    for output in (tmp_path / "out", "."):
        assert run_train([*arguments, "--bf16=false", f"--output={output}", "--overwrite"]) == 0
        monkeypatch.chdir(tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["data.csv", "out"]


# ------------------------------------------------------------------- checkpoints and saved models

CONFIG = ftkit.TrainingConfig(num_train_epochs=1, batch_size=4, bf16=False)
Harms = list[tuple[str, Any]]  # file → a harm, GONE or FOLDER


@pytest.fixture(scope="module")
def encoded_rows(task, tokenizer) -> DatasetDict:
    """Two small encoded splits."""
    splits = DatasetDict({name: Dataset.from_list(ROWS) for name in ("train", "validation")})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ftkit.LeakWarning)
        return task.encode(splits, tokenizer)


@pytest.fixture(scope="module")
def fresh_model() -> BertForSequenceClassification:
    """A model to copy."""
    torch.manual_seed(0)
    return BertForSequenceClassification(tiny_config(num_labels=2, num_hidden_layers=1)).eval()


@pytest.fixture(scope="module")
def valid(encoded_rows, fresh_model, tmp_path_factory) -> Path:
    """The folder of a run of four steps that was stopped after the second; both are saved."""
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    model = copying.deepcopy(fresh_model)
    history, run = ftkit.History(), ftkit.TrainingRun(model, encoded_rows["train"], CONFIG)
    validation = describe_columns(encoded_rows["validation"], "validation")
    history.evaluations, history.best_epoch = [{"epoch": 0, "accuracy": 0.5, "loss": 0.7}], 0
    for _ in range(2):
        history.steps.append(next(run))
        tensors, progress = run.state_dict()
        tensors["best"] = {name: p.detach() for name, p in model.named_parameters()}
        state = {"progress": progress, "history": asdict(history), "validation": validation}
        write_checkpoint(folder, run.step, tensors, state)
    return folder


@contextlib.contextmanager
def harmed_copy(original: Path, harms: Harms) -> Iterator[Path]:
    """Copy a checkpoint or a saved model and what stands beside it; harm its files."""
    with own_folder() as above:
        folder = shutil.copytree(original.parent, above / original.parent.name) / original.name
        for name, harm in harms:
            path = folder / name
            content = path.read_bytes() if path.is_file() else b""
            path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)
            if harm is FOLDER:
                path.mkdir()
            elif harm is not GONE:
                path.write_bytes(fuzzing.do_harm(content, [harm]))
        yield folder


def add_to_manifest(folder: Path, files: dict[str, bytes]) -> None:
    """Write a manifest that names these files too, besides those of the old one."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text()) if path.is_file() else {}
    for name, content in files.items():
        sha256 = hashlib.sha256(content).hexdigest()
        manifest[name] = {"bytes": len(content), "sha256": sha256}
    path.write_text(json.dumps(manifest))


def load_newest(folder: Path) -> str:
    """Load the newest checkpoint; the older one is valid, so that there always is one."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = newest_checkpoint(folder)
    assert found is not None
    skipped = [w for w in caught if w.category is CheckpointWarning]
    assert len(skipped) == len(caught) == (found[0].name == "step-00000001")
    return found[0].name


TENSORS = [f"{name}.safetensors" for name in ("model", "optimizer", "best", "new")]
checkpoint_harms = fuzzing.harms_to(["state.json", "manifest.json"], TENSORS)


@fuzz(50)
@given(harms=checkpoint_harms)
@examples(
    [("manifest.json", (set_value, ("model.safetensors", "bytes"), GONE))],
    [("manifest.json", (swap, 0, 1, b"[" * 10**5))],
    [("manifest.json", (swap, 0, 1, b"{}"))],
    [("new.safetensors", (swap, 0, 1, save({"new": torch.zeros(1)})))],
)
def test_a_damaged_checkpoint(valid, harms):
    with harmed_copy(valid / "step-00000002", harms) as folder:
        before = listing(folder.parent)
        load_newest(folder.parent)
        assert listing(folder.parent) == before


ELSEWHERE = fuzzing.parts(
    """../secret|../../secret|{folder}/secret|./../secret|../step-00000001/state.json|..|.||/|
state.json/../../secret|/dev/zero|\0|\ud800"""
)


@pytest.mark.parametrize("name", [*ELSEWHERE, "x" * 5000])
def test_a_manifest_that_names_what_is_elsewhere(valid, name):
    with harmed_copy(valid / "step-00000002", []) as folder:
        for above in (folder.parent, folder.parent.parent):
            (above / "secret").write_bytes(b"secret")
        add_to_manifest(folder, {name.format(folder=folder.parent): b"secret"})
        assert load_newest(folder.parent) == "step-00000001"


@fuzz(60)
@given(harms=fuzzing.harms_to(["state.json"], TENSORS))
@examples(
    [("state.json", (swap, 0, 1, b"[]"))],
    [("state.json", (set_value, ("progress", "identity"), GONE))],
    [("state.json", (set_value, ("progress", "step"), "2"))],
    [("state.json", (set_value, ("history", "steps", 0, "loss"), GONE))],
    [("state.json", (set_value, ("history", "best_epoch"), 7))],
    [("model.safetensors", GONE)],
    [("model.safetensors", (set_tensor, 0, "number"))],
    [("optimizer.safetensors", (set_tensor, 0, "gone"))],
    [("optimizer.safetensors", (set_tensor, 0, "renamed"))],
    [("best.safetensors", (set_tensor, 0, "renamed"))],
)
def test_resuming_from_odd_content(valid, task, encoded_rows, fresh_model, harms):
    """The manifest is right: the files are as they were written."""
    with harmed_copy(valid / "step-00000002", [*harms, ("manifest.json", GONE)]) as folder:
        add_to_manifest(folder, {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()})
        load_newest(folder.parent)
        rest = {"output_dir": folder.parent.parent, "resume": True}
        ends_well(ftkit.train, copying.deepcopy(fresh_model), encoded_rows, task, CONFIG, **rest)


@pytest.fixture(scope="module")
def saved(task, tokenizer, fresh_model, tmp_path_factory) -> Path:
    """A saved model in order."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    return ftkit.save_pretrained(folder, fresh_model, tokenizer, task, record={})


JSONS = [f"{name}.json" for name in ("task", "config", "tokenizer", "tokenizer_config")]
JSONS += ["special_tokens_map.json"]


@fuzz(60)
@given(harms=fuzzing.harms_to(JSONS, ["model.safetensors", "new.safetensors"]))
@examples(
    [("config.json", (set_value, ("num_hidden_layers",), 2**31))],
    [("config.json", (set_value, ("vocab_size",), 2**63))],
    [("config.json", (set_value, ("num_attention_heads",), 0))],
    [("config.json", (set_value, ("hidden_act",), "no"))],
    [("config.json", (set_value, ("pad_token_id",), 10**6))],
    [("config.json", (set_value, (), None))],
    [("task.json", (swap, 0, 1, b"[" * 10**5))],
    [("tokenizer.json", (set_value, ("added_tokens", 0, "rstrip"), GONE))],
    [("tokenizer_config.json", (set_value, (), None))],
)
def test_a_damaged_saved_model(saved, harms):
    with harmed_copy(saved, harms) as folder:
        before = listing(folder)
        ends_well(ftkit.load_saved, folder)
        assert listing(folder) == before
