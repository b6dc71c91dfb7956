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
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch
from datasets import Dataset, DatasetDict
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from transformers import BertForSequenceClassification

import ftkit
from ftkit.checkpoints import CheckpointWarning, newest_checkpoint, write_checkpoint
from ftkit.cli import main
from ftkit.files import read_table
from tests.conftest import ADJECTIVES, sentences, tiny_config, write_csv

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


# ---------------------------------------------------------------------- harm done to a valid file


@dataclass(frozen=True)
class Flip:
    """One bit turned over."""

    share: float
    bit: int

    def __call__(self, content: bytes) -> bytes:
        """Return the harmed content."""
        if not content:
            return b"\0"
        changed = bytearray(content)
        changed[int(self.share * (len(content) - 1))] ^= 1 << self.bit
        return bytes(changed)


@dataclass(frozen=True)
class Swap:
    """A stretch of bytes taken out, and others put in its place."""

    start: float
    stop: float
    new: bytes

    def __call__(self, content: bytes) -> bytes:
        """Return the harmed content."""
        start, stop = (round(share * len(content)) for share in (self.start, self.stop))
        return content[:start] + self.new + content[max(start, stop) :]


@dataclass(frozen=True)
class Recode:
    """The text in another encoding, or with other line ends."""

    encoding: str = "utf-8"
    line_end: str = "\n"

    def __call__(self, content: bytes) -> bytes:
        """Return the harmed content."""
        text = content.decode("utf-8", errors="replace").replace("\n", self.line_end)
        return text.encode(self.encoding, errors="replace")


@dataclass(frozen=True)
class SetValue:
    """Another value somewhere in a JSON file; `GONE` takes it out."""

    where: float | tuple[str | int, ...]  # a place, or how far down the list of all places
    value: Any

    def __call__(self, content: bytes) -> bytes:
        """Return the harmed content."""
        try:
            root = [json.loads(content)]
        except ValueError:
            return content
        places = list(places_in(root))
        place = self.where if isinstance(self.where, tuple) else None
        place = (0, *place) if place is not None else places[int(self.where * (len(places) - 1))]
        inner = root
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = self.value
        if self.value is GONE:
            del inner[place[-1]]
        return json.dumps(root[0] if root else None).encode()


@dataclass(frozen=True)
class SetHeader:
    """Another value in the header of a safetensors file."""

    change: SetValue

    def __call__(self, content: bytes) -> bytes:
        """Return the harmed content."""
        size = int.from_bytes(content[:8], "little")
        header = self.change(content[8 : 8 + size])
        return len(header).to_bytes(8, "little") + header + content[8 + size :]


@dataclass(frozen=True)
class SetTensor:
    """A safetensors file that is in order, with another tensor, or one less."""

    share: float
    kind: str

    def __call__(self, content: bytes) -> bytes:
        """Return the harmed content."""
        try:
            tensors = load(content)
        except Exception:  # another harm was here before
            return content
        if not tensors:
            return save({"new": torch.zeros(1)})
        name = sorted(tensors)[int(self.share * (len(tensors) - 1))]
        old = tensors.pop(name)
        new = {
            "gone": {},
            "renamed": {"x" + name: old},
            "number": {name: torch.tensor(1.0)},
            "flat": {name: old.flatten()},
            "longer": {name: torch.zeros(*old.shape, 2)},
            "whole numbers": {name: torch.zeros(old.shape, dtype=torch.int64)},
            "nan": {name: torch.full(old.shape, math.nan)},
            "empty": {name: torch.zeros(0)},
        }
        return save({**tensors, **new[self.kind]})


KINDS = ["gone", "renamed", "number", "flat", "longer", "whole numbers", "nan", "empty"]
GONE = ...  # no value that JSON has


def places_in(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the place of every value in nested lists and dicts."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*place, key)
        if isinstance(inner, dict | list):
            yield from places_in(inner, (*place, key))


shares = st.floats(0, 1)
odd_numbers = st.sampled_from([0, -1, 1, 2**31, 2**63, 2**64, 10**30, 0.5, 1e308, math.nan, -0.0])
odd_texts = st.sampled_from(
    [
        *("", " ", '"', '""', "'", "\0", "\r", "\n", "\r\n", "\t", ",", "\ufeff", "\x85", "\x1c"),
        *("\u2028", "nan", "NaN", "null", "1e999", "-1", "0", "1", "1.0", "²", "good", "bad"),
        *(
            "\ud800",
            "text",
            "label",
            "row",
            "a\tb",
            "a,b",
            '"a" b',
            "[PAD] [MASK]",
            "😀",
            "x" * 999,
        ),
    ]
)
texts = st.one_of(odd_texts, st.text(st.characters(), max_size=12))
scalars = st.one_of(st.none(), st.booleans(), odd_numbers, texts, st.integers(), st.floats())
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
flips = st.builds(Flip, shares, st.integers(0, 7))
swaps = st.builds(Swap, shares, shares, st.binary(max_size=9) | texts.map(lambda t: utf8(t)))
recodings = st.builds(
    Recode,
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1", "cp1252", "utf-7"]),
    st.sampled_from(["\n", "\r", "\r\n", "\n\n", "\x85", "\0", ""]),
)
values_set = st.builds(SetValue, shares, json_values | st.just(GONE))
harms = st.one_of(flips, swaps, st.binary(max_size=40).map(lambda new: Swap(0, 1, new)))


def utf8(text: str) -> bytes:
    """Encode a text, lone surrogates too (which makes it invalid UTF-8)."""
    return text.encode("utf-8", errors="surrogatepass")


# ------------------------------------------------------------------------------- files of rows

GOOD_ROWS = [{"text": t, "label": label} for label in ADJECTIVES for t in sentences(label)[:8]]
tables = st.lists(
    st.dictionaries(st.sampled_from(["text", "label"]) | texts, json_values, max_size=4), max_size=5
)


def delimited(rows: list[list[str]], delimiter: str) -> bytes:
    """Write cells without any quoting."""
    return utf8("".join(delimiter.join(row) + "\n" for row in rows))


def good_file(suffix: str) -> bytes:
    """Return a file of sixteen rows that is in order; of fewer where parts are marked."""
    if suffix == ".conll":
        return b"-DOCSTART- O\n\nAnn\tB-PER\nsings\tO\n\nIn NNP O\nRome NNP B-LOC\n"
    if suffix == ".json":
        answers = [{"text": "Rome", "answer_start": 13}, {"text": "Ann", "answer_start": 0}]
        questions = [{"id": i, "question": "Where?", "answers": answers} for i in range(2)]
        paragraph = {"context": "Ann lives in Rome.", "qas": questions}
        return as_jsonl([{"data": [{"title": "Ann", "paragraphs": [paragraph]}]}])
    if suffix == ".jsonl":
        return as_jsonl(GOOD_ROWS)
    if suffix == ".parquet":
        return as_parquet(pyarrow.Table.from_pylist(GOOD_ROWS))
    rows = [["text", "label"], *([row["text"], row["label"]] for row in GOOD_ROWS)]
    return delimited(rows, "," if suffix == ".csv" else "\t")


def as_jsonl(rows: list[Any]) -> bytes:
    """Write one row a line, NaN and infinity as Python does."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def as_parquet(table: pyarrow.Table) -> bytes:
    """Write a table as Parquet."""
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer)
    return buffer.getvalue()


def harmed(suffix: str, kinds: st.SearchStrategy) -> st.SearchStrategy[bytes]:
    """Draw a valid file with up to three kinds of harm done to it."""

    def do(changes: list[Callable[[bytes], bytes]]) -> bytes:
        content = good_file(suffix)
        for change in changes:
            content = change(content)
        return content

    return st.lists(kinds, max_size=3).map(do)


def grids(delimiter: str) -> st.SearchStrategy[bytes]:
    """Draw rows of odd cells below a usual header, or below an odd one."""
    header = st.just(["text", "label"]) | st.lists(texts, max_size=4)
    row = st.tuples(texts, texts).map(list) | st.lists(texts, max_size=3)
    return st.tuples(header, st.lists(row, max_size=12)).map(
        lambda grid: delimited([grid[0], *grid[1]], delimiter)
    )


BROKEN_UTF8 = pyarrow.Array.from_buffers(
    pyarrow.string(),
    2,
    [None, pyarrow.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pyarrow.py_buffer(b"\xff\xfe")],
)
FAR = 2**62  # a date, a time or a duration that Python's own types cannot hold
ARROW_COLUMNS = [  # two rows each
    pyarrow.array(["good", "bad"]),
    pyarrow.array(["fine", None]),
    BROKEN_UTF8,
    pyarrow.nulls(2),
    pyarrow.array([True, False]),
    pyarrow.array([1, 0], pyarrow.int8()),
    pyarrow.array([2**64 - 1, 0], pyarrow.uint64()),
    pyarrow.array([0.5, math.nan], pyarrow.float32()),
    pyarrow.array([math.inf, 1.0]),
    pyarrow.array([[1], []]),
    pyarrow.array([[["a"]], None]),
    pyarrow.array([{"a": 1}, {"a": None}]),
    pyarrow.array([[("k", 1)], []], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
    pyarrow.array([b"\xff", b"a"]),
    pyarrow.array([b"ab", b"cd"], pyarrow.binary(2)),
    pyarrow.array(["a", "b"]).dictionary_encode(),
    pyarrow.array([1, 2], pyarrow.decimal128(38, 10)),
    pyarrow.array([FAR, 0], pyarrow.int64()).cast(pyarrow.timestamp("us")),
    pyarrow.array([FAR, 0], pyarrow.int64()).cast(pyarrow.timestamp("ns", "Mars/Olympus")),
    pyarrow.array([2**31 - 1, 0], pyarrow.int32()).cast(pyarrow.date32()),
    pyarrow.array([FAR, 0], pyarrow.int64()).cast(pyarrow.time64("ns")),
    pyarrow.array([FAR, 0], pyarrow.int64()).cast(pyarrow.duration("us")),
    pyarrow.StructArray.from_arrays([pyarrow.array([1, 2])] * 2, names=["a", "a"]),
]
names = st.sampled_from(["text", "label", "sentence1", "sentence2", "labels"]) | texts
arrow_columns = st.tuples(
    names.filter(lambda n: n.isprintable() or utf8(n).decode(errors="ignore") == n),
    st.sampled_from(ARROW_COLUMNS),
)
parquets = st.lists(arrow_columns, min_size=1, max_size=3).map(
    lambda pairs: as_parquet(pyarrow.table([c for _, c in pairs], names=[n for n, _ in pairs]))
)
contents = {
    ".csv": st.one_of(grids(","), harmed(".csv", swaps | flips | recodings), st.binary()),
    ".tsv": st.one_of(grids("\t"), harmed(".tsv", swaps | flips | recodings), st.binary()),
    ".jsonl": st.one_of(
        tables.map(as_jsonl),
        st.lists(json_values, max_size=3).map(as_jsonl),
        harmed(".jsonl", swaps | flips | recodings),
        st.binary(),
    ),
    ".parquet": st.one_of(parquets, harmed(".parquet", swaps | flips), st.binary()),
    ".conll": st.one_of(grids("\t"), grids(" "), harmed(".conll", swaps | flips | recodings)),
    ".json": st.one_of(
        harmed(".json", values_set), harmed(".json", swaps | flips | values_set | recodings)
    ),
}


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


def prepare_file(suffix: str, content: bytes, tokenizer: Any) -> None:
    """Load one file alone, and as the training split of a folder."""
    with own_folder() as folder:
        (folder / f"train{suffix}").write_bytes(content)
        prepare(folder / f"train{suffix}", tokenizer)
        prepare(folder, tokenizer)
        assert [path.name for path in folder.iterdir()] == [f"train{suffix}"]


@fuzz(50)
@given(content=contents[".csv"])
@example(content=b"te\0xt,label\nfine,good\n")
def test_csv(tokenizer, content):
    prepare_file(".csv", content, tokenizer)


@fuzz(30)
@given(content=contents[".tsv"])
@example(content=b"text\tlab\0el\nfine\tgood\n")
def test_tsv(tokenizer, content):
    prepare_file(".tsv", content, tokenizer)


@fuzz(50)
@given(content=contents[".jsonl"])
@example(content=b'{"text": "\\ud800", "label": "x"}\n')
@example(content=b'{"text\\ud800": "a"}\n')
@example(content=b'{"text": "a", "label": ' + b"9" * 5000 + b"}\n")
@example(content=b'{"text": "a", "label": ' + b"[" * 10**5 + b"}\n")
@example(content=b'{"text": "a", "label": 18446744073709551616}\n')
@example(content=b'{"text": "a", "label": ["x"]}\n{"text": "b", "label": []}\n')
def test_jsonl(tokenizer, content):
    prepare_file(".jsonl", content, tokenizer)


@fuzz(40)
@given(content=contents[".parquet"])
@example(content=as_parquet(pyarrow.table({"text": BROKEN_UTF8})))
def test_parquet(tokenizer, content):
    prepare_file(".parquet", content, tokenizer)


@pytest.mark.parametrize("column", ARROW_COLUMNS, ids=lambda column: str(column.type))
def test_every_kind_of_column_in_parquet(tokenizer, column):
    for others in ({"text": column, "label": ["x", "y"]}, {"text": ["a", "b"], "label": column}):
        prepare_file(".parquet", as_parquet(pyarrow.table(others)), tokenizer)


@fuzz(10)
@given(content=contents[".conll"])
def test_conll(tokenizer, content):
    prepare_file(".conll", content, tokenizer)


@fuzz(20)
@given(content=contents[".json"])
def test_squad(tokenizer, content):
    prepare_file(".json", content, tokenizer)


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"])
def test_a_line_separator_within_json_is_text(tmp_path, separator):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"text": "one{separator}row"}}\n{{"text": "two"}}\n', encoding="utf-8")
    assert read_table(path)["row"][1] == "a.jsonl, row 2"


# ------------------------------------------------------------------------------ folders and names

file_names = st.sampled_from(
    [
        *("train.csv", "train.tsv", "train.jsonl", "train.parquet", "TRAIN.csv", "train.CSV"),
        *("train", ".csv", "train.xlsx", "train.csv.bak", "valid.csv", "val.jsonl", "dev.tsv"),
        *("validation.parquet", "test.csv", "test.jsonl", "tr\nain.csv", "träin 😀.csv", "x" * 250),
        *("test.parquet", "a=b.csv", os.fsdecode(b"\xff.csv"), "-.csv", "train .csv", "train..csv"),
    ]
)
FOLDER = None  # in place of a file's content
file_contents = st.one_of(
    st.sampled_from([good_file(suffix) for suffix in contents] + [b"", FOLDER]), *contents.values()
)


@fuzz(30)
@given(files=st.dictionaries(file_names, file_contents, max_size=4))
@example(files={"train.csv": FOLDER})
@example(files={os.fsdecode(b"\xff.csv"): good_file(".csv")})
def test_a_folder_of_odd_files(tokenizer, files):
    with own_folder() as folder:
        for name, content in files.items():
            if content is FOLDER:
                (folder / name).mkdir()
            else:
                (folder / name).write_bytes(content)
        prepare(folder, tokenizer)
        assert sorted(os.listdir(folder)) == sorted(files)
        for name in files:
            prepare(folder / name, tokenizer)


odd_paths = st.sampled_from(
    [
        *("", ".", "..", "/", "//", "~", "a/b", "a/b:c", ":", "a/b:", "a/:c", "-a/b", "a//b"),
        *("data.csv/", "data.csv/x", "data.csv/train.csv", "no/data.csv", "x" * 300, "x" * 5000),
        *("x" * 300 + ".csv", "a\0b", "a\0b.csv", os.fsdecode(b"\xff"), "ü 😀", "a/" + "b" * 200),
        *("a/b" * 3000, "paraphrase", "paraphrase ", "PARAPHRASE", "*.csv", "[", "train.CSV"),
        *(
            "entities",
            "questions",
            "/dev/null",
            "/dev/null.csv",
            "loop",
            "loop.csv",
            "..a/b",
            "a/b..c",
            "a b/c",
            "a/b\n",
        ),
    ]
)


@fuzz(40)
@given(source=odd_paths | texts | st.tuples(texts, texts).map("/".join))
@example(source="x" * 300)
def test_the_name_of_a_source(source):
    with own_folder() as folder, contextlib.chdir(folder):
        Path("data.csv").write_bytes(good_file(".csv"))
        for name in ("loop", "loop.csv"):
            Path(name).symlink_to(name)
        ends_well(ftkit.load_splits, source)
        assert sorted(os.listdir()) == ["data.csv", "loop", "loop.csv"]


# ------------------------------------------------------------------------------- the command line


def listing(folder: Path) -> dict[str, str]:
    """Return what stands below a folder: path → a hash of the content."""
    found = {}
    for path in folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        kind = "link" if path.is_symlink() else "folder" if path.is_dir() else "file"
        found[str(path)] = kind + hashlib.sha256(content).hexdigest()
    return found


def make_surroundings(folder: Path) -> None:
    """Lay out data of many kinds, and outputs that are there already."""
    rows = [{"text": text, "label": label} for label in ADJECTIVES for text in sentences(label)[:6]]
    write_csv(folder / "data.csv", rows)
    for split in ("train", "validation", "test"):
        write_csv(folder / "my data ü" / f"{split}.csv", rows)
    write_csv(folder / "only train" / "train.csv", rows)
    write_csv(folder / "no train" / "test.csv", rows)
    write_csv(folder / "one class.csv", rows[:6] + rows[:6])
    write_csv(folder / "classes.csv", [{"text": f"a {i}", "label": f"c{i}"} for i in range(1500)])
    write_csv(folder / "classes" / "train.csv", [{**row, "label": i} for i, row in enumerate(rows)])
    for name, labels in {"bool": [True, False], "none": ["a", None], "list": [["a"], []]}.items():
        lines = [{"text": f"a {i}", "label": labels[i % 2]} for i in range(12)]
        (folder / f"{name}.jsonl").write_bytes(as_jsonl(lines))
    (folder / os.fsdecode(b"\xff.csv")).write_bytes((folder / "data.csv").read_bytes())
    (folder / "a file").write_text("precious")
    (folder / "full").mkdir()
    (folder / "full" / "thesis.txt").write_text("years of work")
    for name in ("earlier", "earlier/checkpoints/step-00000001", "ended"):
        (folder / name).mkdir(parents=True)
    (folder / "ended" / "task.json").write_text("{}")
    (folder / "link").symlink_to("full")
    (folder / "loop").symlink_to("loop")


sources = st.sampled_from(
    [
        *("data.csv", "my data ü", "only train", "no train", "one class.csv", "classes.csv"),
        *("classes", "bool.jsonl", "none.jsonl", "list.jsonl", "full", "no.csv", "org/name", ""),
        *("entities", os.fsdecode(b"\xff.csv")),
    ]
)
outputs = st.sampled_from(
    [
        *("out", "new folder/déep/out", "a file", "a file/out", "full", "full/out", "earlier"),
        *("ended", "ended/", ".", "..", "", "/", "link", "link/out", "loop", "loop/out", "out\n"),
        *("-out", "ü 😀", "out/", "out/.", "no/x" * 9, "x" * 250, "out\0", os.fsdecode(b"\xff")),
        *("/proc/out", "/dev/null/out"),
    ]
)
ODD_OPTIONS = [
    *(("--learning-rate", x) for x in ("nan", "inf", "-1", "0", "1e308", "1e38", "1e-320", "x")),
    *(("--head-learning-rate", x) for x in ("nan", "inf", "-1", "0", "1e308", "1e39", "")),
    *(("--layer-decay", x) for x in ("nan", "0", "-1", "1e308", "1e200", "1e-308")),
    *(("--num-train-epochs", x) for x in ("0", "-1", "1.5", "nan", "", "2")),
    *(("--batch-size", x) for x in ("0", "-1", "1", "1000000", "1" + "0" * 30, "9" * 5000)),
    *(("--gradient-accumulation-steps", x) for x in ("0", "-1", "3", "1" + "0" * 30)),
    *(("--warmup-steps", x) for x in ("nan", "-1", "0.5", "1", "1e308", "inf", "1e-320")),
    *(("--weight-decay", x) for x in ("nan", "-1", "1e308", "1e39", "inf")),
    *(("--max-grad-norm", x) for x in ("nan", "0", "1e308", "1e-320", "inf")),
    *(("--save-steps", x) for x in ("-1", "1", "1" + "0" * 30)),
    *(("--seed", x) for x in ("-1", "4294967296", "9223372036854775808", "1" + "0" * 30)),
    *(("--optim", x) for x in ("sgd", "rmsprop", "adam", "")),
    *(("--lr-scheduler-type", x) for x in ("cosine", "constant", "")),
    *(("--bf16", x) for x in ("true", "yes", "")),
    *(("--tune", x) for x in ("head", "bias", "top:1", "top:99", "top:0", "top:", "top:-1", "top")),
    *(("--tune", x) for x in ("*", "[", "", "lora", "?", "top:²", "top:٢", "top:" + "9" * 5000)),
    *(("--tune", x) for x in ("full*", "[!]", "*pooler*", "*position_embeddings*", "*" * 99 + "z")),
    *(("--tune", *x) for x in (("lora", "head"), ("full", "head"), ("*", ""), ("*bias", "*.0.*"))),
    *(("--text-columns", *x) for x in (("no",), ("",), ("text", "text"), ("row",), ("label",))),
    *(("--text-columns", *x) for x in (("text", "label"), ("text", "label", "row"), ("txt", "no"))),
    *(("--label-column", x) for x in ("no", "", "text", "row", "lable")),
    *(("--checkpoint", x) for x in ("no", "", "full", "a file", "org/name", "a\0", "..")),
    *(("--revision", x) for x in ("main", "", "../..")),
    *(("--overwrite",), ("--resume",), ("--overwrite", "--resume"), ("--no-such-option",)),
]
odd_options = st.sampled_from(ODD_OPTIONS) | st.tuples(st.just("--tune"), texts)
in_order = st.sampled_from(["data.csv", "my data ü", "only train"])
commands = st.one_of(
    st.tuples(in_order, st.just("out"), st.lists(odd_options, min_size=1, max_size=2)),
    st.tuples(in_order, st.just("out"), st.lists(odd_options, min_size=1, max_size=1)),
    st.tuples(in_order, outputs, st.lists(st.sampled_from(ODD_OPTIONS[-4:-1]), max_size=1)),
    st.tuples(sources, st.just("out"), st.lists(odd_options, max_size=1)),
)


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
@given(command=commands)
@example(command=("data.csv", "out", [("--tune", "top:²")]))
@example(command=("data.csv", "out", [("--tune", "top:" + "9" * 5000)]))
@example(command=("data.csv", "out", [("--layer-decay", "1e200")]))
@example(command=("data.csv", "out", [("--seed", "1" + "0" * 30)]))
@example(command=("data.csv", "x" * 250, []))
@example(command=("data.csv", "x" * 300, []))
@example(command=("data.csv", "a file/out", []))
@example(command=("data.csv", "loop", []))
@example(command=("data.csv", "loop/out", []))
@example(command=("data.csv", "out\0", []))
@example(command=("data.csv", "/proc/out", []))
@example(command=("data.csv", os.fsdecode(b"\xff"), []))
@example(command=(os.fsdecode(b"\xff.csv"), "out", []))
@example(command=("classes.csv", "out", []))
@example(command=("classes.csv", "out", [("--label-column", "text")]))
@example(command=("list.jsonl", "out", []))
def test_train(checkpoint, command):
    source, output, options = command
    base = ["--checkpoint", str(checkpoint), "--data", source, "--num-train-epochs=1"]
    base += ["--learning-rate=1e-3", "--batch-size=8", "--bf16=false", f"--output={output}"]
    with own_folder() as folder, contextlib.chdir(folder):
        make_surroundings(folder)
        before = listing(folder)
        status = run_train([*base, *(word for option in options for word in option)])
        after = listing(folder)
        if status == 2 or (after == before and output.startswith("ended")):
            assert after == before
            return  # an ended run has nothing to resume
        target = Path(os.path.normpath(folder / output)).resolve()
        changed = {p for p in {*before, *after} if before.get(p) != after.get(p)}
        below = {str(path) for path in (target, *target.parents)}
        assert all(Path(p).is_relative_to(target) or p in below for p in changed), changed
        ftkit.load_saved(target)


def test_an_output_is_replaced_from_inside(checkpoint, tmp_path, monkeypatch):
    data = write_csv(tmp_path / "data.csv", GOOD_ROWS)
    arguments = ["--checkpoint", str(checkpoint), "--data", str(data), "--num-train-epochs=1"]
    for output in (tmp_path / "out", "."):
        assert run_train([*arguments, "--bf16=false", f"--output={output}", "--overwrite"]) == 0
        monkeypatch.chdir(tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["data.csv", "out"]


# ------------------------------------------------------------------- checkpoints and saved models


@pytest.fixture(scope="module")
def encoded_rows(task, tokenizer) -> DatasetDict:
    """Two small encoded splits."""
    splits = DatasetDict({name: Dataset.from_list(GOOD_ROWS) for name in ("train", "validation")})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ftkit.LeakWarning)
        return task.encode(splits, tokenizer)


@pytest.fixture(scope="module")
def fresh_model() -> BertForSequenceClassification:
    """A model to copy."""
    torch.manual_seed(0)
    return BertForSequenceClassification(tiny_config(num_labels=2, num_hidden_layers=1)).eval()


CONFIG = ftkit.TrainingConfig(num_train_epochs=1, batch_size=4, bf16=False)


@pytest.fixture(scope="module")
def valid(encoded_rows, fresh_model, tmp_path_factory) -> Path:
    """The folder of a run of four steps that was stopped after the second; both are saved."""
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    model = copying.deepcopy(fresh_model)
    history, run = ftkit.History(), ftkit.TrainingRun(model, encoded_rows["train"], CONFIG)
    for _ in range(2):
        history.steps.append(next(run))
        tensors, progress = run.state_dict()
        tensors["best"] = {name: p.detach() for name, p in model.named_parameters()}
        state = {"progress": progress, "history": asdict(history)}
        write_checkpoint(folder, run.step, tensors, state)
    return folder


def apply(folder: Path, harm: list[tuple[str, Any]]) -> None:
    """Harm the files of a folder."""
    for name, change in harm:
        path = folder / name
        content = path.read_bytes() if path.is_file() else b""
        path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)
        if change is FOLDER:
            path.mkdir()
        elif change is not GONE:
            path.write_bytes(change(content))


def seal(folder: Path) -> None:
    """Write a manifest in which everything is as it is."""
    manifest = {}
    for path in folder.iterdir():
        if path.is_file() and path.name != "manifest.json":
            content = path.read_bytes()
            sha256 = hashlib.sha256(content).hexdigest()
            manifest[path.name] = {"bytes": len(content), "sha256": sha256}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def load_newest(folder: Path) -> tuple[Path, Any, dict]:
    """Load the newest checkpoint; the older one is valid, so that there always is one."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = newest_checkpoint(folder)
    assert found is not None
    skipped = [w for w in caught if w.category is CheckpointWarning]
    assert len(skipped) == len(caught) == (found[0].name == "step-00000001")
    return found


tensor_harms = st.one_of(
    st.builds(SetTensor, shares, st.sampled_from(KINDS)), values_set.map(SetHeader), harms
)
checkpoint_harms = st.one_of(
    st.tuples(st.sampled_from(["state.json", "manifest.json"]), values_set | harms),
    st.tuples(
        st.sampled_from([f"{name}.safetensors" for name in ("model", "optimizer", "best", "new")]),
        tensor_harms,
    ),
    st.tuples(
        st.sampled_from(["state.json", "manifest.json", "model.safetensors", "best.safetensors"]),
        st.sampled_from([GONE, FOLDER]),
    ),
)
lists_of_harm = st.lists(checkpoint_harms, min_size=1, max_size=3)


@fuzz(50)
@given(harm=lists_of_harm)
@example(harm=[("manifest.json", SetValue(("model.safetensors", "bytes"), GONE))])
@example(harm=[("manifest.json", Swap(0, 1, b"[" * 10**5))])
@example(harm=[("manifest.json", Swap(0, 1, b"{}"))])
@example(harm=[("new.safetensors", Swap(0, 1, save({"new": torch.zeros(1)})))])
def test_a_damaged_checkpoint(valid, harm):
    with own_folder() as folder:
        shutil.copytree(valid, folder / "checkpoints")
        apply(folder / "checkpoints" / "step-00000002", harm)
        before = listing(folder)
        load_newest(folder / "checkpoints")
        assert listing(folder) == before


ELSEWHERE = [
    "../secret",
    "../../secret",
    "{folder}/secret",
    "./../secret",
    "../step-00000001/state.json",
]
ELSEWHERE += [
    "..",
    ".",
    "",
    "/",
    "state.json/../../secret",
    "/dev/zero",
    "\0",
    "\ud800",
    "x" * 5000,
]


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_manifest_that_names_what_is_elsewhere(valid, tmp_path, name):
    shutil.copytree(valid, tmp_path / "checkpoints")
    for folder in (tmp_path, tmp_path / "checkpoints"):
        (folder / "secret").write_text("secret")
    newest = tmp_path / "checkpoints" / "step-00000002"
    manifest = json.loads((newest / "manifest.json").read_text())
    sha256 = hashlib.sha256(b"secret").hexdigest()
    manifest[name.format(folder=tmp_path)] = {"bytes": 6, "sha256": sha256}
    (newest / "manifest.json").write_text(json.dumps(manifest))
    assert load_newest(tmp_path / "checkpoints")[0].name == "step-00000001"


checks_content = pytest.mark.skipif(
    not hasattr(ftkit.training, "check_progress"),
    reason="TrainingRun.load_state_dict does not look at what it loads yet",
)


def go_on(run: ftkit.TrainingRun, tensors: Any, state: dict) -> None:
    """Load a checkpoint and take the next step."""
    run.load_state_dict(tensors, state.get("progress"))
    next(run, None)


@checks_content
@fuzz(40)
@given(harm=lists_of_harm)
@example(harm=[("state.json", Swap(0, 1, b"[]"))])
@example(harm=[("state.json", SetValue(("progress", "identity"), GONE))])
@example(harm=[("state.json", SetValue(("progress", "step"), "2"))])
@example(harm=[("model.safetensors", GONE)])
@example(harm=[("model.safetensors", SetTensor(0, "number"))])
@example(harm=[("optimizer.safetensors", SetTensor(0, "gone"))])
@example(harm=[("optimizer.safetensors", SetTensor(0, "renamed"))])
def test_a_sealed_checkpoint_of_odd_content(valid, encoded_rows, fresh_model, harm):
    with own_folder() as folder:
        shutil.copytree(valid, folder / "checkpoints")
        apply(folder / "checkpoints" / "step-00000002", harm)
        apply(folder / "checkpoints" / "step-00000002", [("manifest.json", GONE)])
        seal(folder / "checkpoints" / "step-00000002")
        _, tensors, state = load_newest(folder / "checkpoints")
        model = copying.deepcopy(fresh_model)
        run = ftkit.TrainingRun(model, encoded_rows["train"], CONFIG)
        ends_well(go_on, run, tensors, state)


@checks_content
@fuzz(20)
@given(harm=lists_of_harm)
@example(harm=[("best.safetensors", SetTensor(0, "renamed"))])
@example(harm=[("state.json", SetValue(("history", "steps", 0, "loss"), GONE))])
@example(harm=[("state.json", SetValue(("history", "best_epoch"), 7))])
def test_resuming_from_odd_content(valid, task, encoded_rows, fresh_model, harm):
    with own_folder() as folder:
        shutil.copytree(valid, folder / "checkpoints")
        apply(folder / "checkpoints" / "step-00000002", harm)
        apply(folder / "checkpoints" / "step-00000002", [("manifest.json", GONE)])
        seal(folder / "checkpoints" / "step-00000002")
        model = copying.deepcopy(fresh_model)
        rest = {"output_dir": folder, "resume": True}
        ends_well(ftkit.train, model, encoded_rows, task, CONFIG, **rest)


@pytest.fixture(scope="module")
def saved(task, tokenizer, fresh_model, tmp_path_factory) -> Path:
    """A saved model in order."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    return ftkit.save_pretrained(folder, fresh_model, tokenizer, task, record={})


SAVED = ["task.json", "config.json", "tokenizer.json", "tokenizer_config.json"]
saved_harms = st.one_of(
    st.tuples(st.sampled_from(SAVED), values_set | harms),
    st.tuples(st.just("model.safetensors"), tensor_harms),
    st.tuples(st.sampled_from([*SAVED, "model.safetensors"]), st.sampled_from([GONE, FOLDER])),
    st.tuples(st.sampled_from(["special_tokens_map.json", "new.safetensors"]), harms),
)


@fuzz(60)
@given(harm=st.lists(saved_harms, min_size=1, max_size=3))
@example(harm=[("config.json", SetValue(("num_hidden_layers",), 2**31))])
@example(harm=[("config.json", SetValue(("vocab_size",), 2**63))])
@example(harm=[("config.json", SetValue(("num_attention_heads",), 0))])
@example(harm=[("config.json", SetValue(("hidden_act",), "no"))])
@example(harm=[("config.json", SetValue(("pad_token_id",), 10**6))])
@example(harm=[("config.json", SetValue((), None))])
@example(harm=[("task.json", Swap(0, 1, b"[" * 10**5))])
@example(harm=[("tokenizer.json", SetValue(("added_tokens", 0, "rstrip"), GONE))])
@example(harm=[("tokenizer_config.json", SetValue((), None))])
def test_a_damaged_saved_model(saved, harm):
    with own_folder() as folder:
        shutil.copytree(saved, folder / "saved")
        apply(folder / "saved", harm)
        before = listing(folder)
        ends_well(ftkit.load_saved, folder / "saved")
        assert listing(folder) == before
