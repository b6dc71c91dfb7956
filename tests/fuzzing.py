"""Odd values, files, options, and harm done to valid files: what `test_fuzz.py` draws from.

A harm is a tuple: a function of a file's content, then its other arguments.
"""

import io
import json
import math
import os
import shlex
from collections.abc import Iterator
from typing import Any

import pyarrow
import pyarrow.parquet
import torch
from hypothesis import strategies as st
from safetensors.torch import load, save

from tests.conftest import ADJECTIVES, sentences

GONE = ...  # no value that JSON has
FOLDER = None  # in place of a file's content

# ------------------------------------------------------------------------------------- values


def parts(text: str, mark: str = "|") -> list[str]:
    """Cut a text at each mark; its line ends count for nothing."""
    return text.replace("\n", "").split(mark)


def utf8(text: str) -> bytes:
    """Encode a text, lone surrogates too (which makes it invalid UTF-8)."""
    return text.encode("utf-8", errors="surrogatepass")


shares = st.floats(0, 1)
numbers = st.sampled_from([0, -1, 1, 2**31, 2**63, 2**64, 10**30, 0.5, 1e308, math.nan, -0.0])
CHARACTERS = " \"'\0\r\n\t,\ufeff\x85\x1c\u2028\ud800²😀"
WORDS = 'null|nan|NaN|1e999|-1|0|1|1.0|good|bad|text|label|row|a\tb|a,b|"a" b|[PAD] [MASK]'
odd_texts = st.sampled_from([*CHARACTERS, *parts(WORDS), "", '""', "\r\n", "x" * 999])
texts = odd_texts | st.text(st.characters(), max_size=12)
scalars = st.one_of(st.none(), st.booleans(), numbers, texts, st.integers(), st.floats())
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


# -------------------------------------------------------------------------------------- harms


def flip(content: bytes, share: float, bit: int) -> bytes:
    """Turn one bit over."""
    changed = bytearray(content or b"\0")
    changed[int(share * (len(changed) - 1))] ^= 1 << bit
    return bytes(changed)


def swap(content: bytes, start: float, stop: float, new: bytes) -> bytes:
    """Take a stretch of bytes out, and put others in its place."""
    first, last = (round(share * len(content)) for share in (start, stop))
    return content[:first] + new + content[max(first, last) :]


def recode(content: bytes, encoding: str, line_end: str) -> bytes:
    """Write the text in another encoding, with other line ends."""
    text = content.decode("utf-8", errors="replace").replace("\n", line_end)
    return text.encode(encoding, errors="replace")


def places_in(value: Any, place: tuple = ()) -> Iterator[tuple]:
    """Yield the place of every value in nested lists and dicts."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*place, key)
        if isinstance(inner, dict | list):
            yield from places_in(inner, (*place, key))


def set_value(content: bytes, where: float | tuple, value: Any) -> bytes:
    """Set or remove one value in JSON, at a place or so far down the list of all places."""
    try:
        root = [json.loads(content)]
    except ValueError:  # another harm was here before
        return content
    places = list(places_in(root))
    place = (0, *where) if isinstance(where, tuple) else places[int(where * (len(places) - 1))]
    inner = root
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    if value is GONE:
        del inner[place[-1]]
    return json.dumps(root[0] if root else None).encode()


def set_header(content: bytes, where: float, value: Any) -> bytes:
    """Set or remove one value in the header of a safetensors file."""
    size = int.from_bytes(content[:8], "little")
    header = set_value(content[8 : 8 + size], where, value)
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


TENSORS = {  # what stands in place of a tensor in a safetensors file that is in order
    "gone": lambda name, old: {},
    "renamed": lambda name, old: {"x" + name: old},
    "number": lambda name, old: {name: torch.tensor(1.0)},
    "flat": lambda name, old: {name: old.flatten()},
    "longer": lambda name, old: {name: torch.zeros(*old.shape, 2)},
    "whole numbers": lambda name, old: {name: torch.zeros(old.shape, dtype=torch.int64)},
    "nan": lambda name, old: {name: torch.full(old.shape, math.nan)},
    "empty": lambda name, old: {name: torch.zeros(0)},
}


def set_tensor(content: bytes, share: float, kind: str) -> bytes:
    """Put another tensor, or none, in place of one in a safetensors file."""
    try:
        tensors = load(content)
    except Exception:  # another harm was here before
        return content
    if not tensors:
        return save({"new": torch.zeros(1)})
    name = sorted(tensors)[int(share * (len(tensors) - 1))]
    old = tensors.pop(name)
    return save({**tensors, **TENSORS[kind](name, old)})


def harm(function: Any, *arguments: st.SearchStrategy) -> st.SearchStrategy[tuple]:
    """Draw the arguments of a harm."""
    return st.tuples(st.just(function), *arguments)


def do_harm(content: bytes, harms: list[tuple]) -> bytes:
    """Return a content after all harms."""
    for function, *arguments in harms:
        content = function(content, *arguments)
    return content


ENCODINGS = st.sampled_from(parts("utf-8|utf-8-sig|utf-16|utf-32|latin-1|cp1252|utf-7"))
LINE_ENDS = st.sampled_from(["\n", "\r", "\r\n", "\n\n", "\x85", "\0", ""])
bytewise = harm(flip, shares, st.integers(0, 7)) | harm(
    swap, shares, shares, st.binary(max_size=9) | texts.map(utf8)
)
textual = bytewise | harm(recode, ENCODINGS, LINE_ENDS)
values_set = harm(set_value, shares, json_values | st.just(GONE))
anything = bytewise | harm(swap, st.just(0), st.just(1), st.binary(max_size=40))
tensor_harms = st.one_of(
    harm(set_tensor, shares, st.sampled_from([*TENSORS])),
    harm(set_header, shares, json_values | st.just(GONE)),
    anything,
)


def harms_to(jsons: list[str], tensors: list[str]) -> st.SearchStrategy[list[tuple[str, Any]]]:
    """Draw one to three harms to the files of a folder: names, and what happens to each."""
    one = st.one_of(
        st.tuples(st.sampled_from(jsons), values_set | anything),
        st.tuples(st.sampled_from(tensors), tensor_harms),
        st.tuples(st.sampled_from(jsons + tensors), st.sampled_from([GONE, FOLDER])),
    )
    return st.lists(one, min_size=1, max_size=3)


# ------------------------------------------------------------------------------- files of rows


def delimited(rows: list[list[str]], delimiter: str = ",") -> bytes:
    """Write cells without any quoting."""
    return utf8("".join(delimiter.join(row) + "\n" for row in rows))


def as_jsonl(rows: list[Any]) -> bytes:
    """Write one row a line, NaN and infinity as Python does."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def as_parquet(columns: dict[str, Any] | list[tuple[str, Any]]) -> bytes:
    """Write named columns as Parquet; a name may come twice."""
    pairs = dict(columns).items() if isinstance(columns, dict) else columns
    buffer = io.BytesIO()
    table = pyarrow.table([column for _, column in pairs], names=[name for name, _ in pairs])
    pyarrow.parquet.write_table(table, buffer)
    return buffer.getvalue()


ROWS = [{"text": t, "label": label} for label in ADJECTIVES for t in sentences(label)[:8]]
CELLS = [["text", "label"], *([row["text"], row["label"]] for row in ROWS)]
ANSWERS = [{"text": "Rome", "answer_start": 13}, {"text": "Ann", "answer_start": 0}]
QUESTIONS = [{"id": i, "question": "Where?", "answers": ANSWERS} for i in range(2)]
PARAGRAPH = {"context": "Ann lives in Rome.", "qas": QUESTIONS}
GOOD = {  # a file of each kind that is in order
    ".csv": delimited(CELLS),
    ".tsv": delimited(CELLS, "\t"),
    ".jsonl": as_jsonl(ROWS),
    ".parquet": as_parquet({name: [row[name] for row in ROWS] for name in ROWS[0]}),
    ".conll": b"-DOCSTART- O\n\nAnn\tB-PER\nsings\tO\n\nIn NNP O\nRome NNP B-LOC\n",
    ".json": as_jsonl([{"data": [{"title": "Ann", "paragraphs": [PARAGRAPH]}]}]),
}


def harmed(suffix: str, harms: st.SearchStrategy[tuple]) -> st.SearchStrategy[bytes]:
    """Draw a valid file with up to three harms done to it."""
    return st.lists(harms, max_size=3).map(lambda drawn: do_harm(GOOD[suffix], drawn))


def grids(delimiter: str) -> st.SearchStrategy[bytes]:
    """Draw rows of odd cells below a usual header, or below an odd one."""
    header = st.just(["text", "label"]) | st.lists(texts, max_size=4)
    row = st.lists(texts, min_size=2, max_size=2) | st.lists(texts, max_size=3)
    grid = st.builds(lambda first, rest: [first, *rest], header, st.lists(row, max_size=12))
    return grid.map(lambda rows: delimited(rows, delimiter))


BROKEN_UTF8 = pyarrow.Array.from_buffers(
    pyarrow.string(),
    2,
    [None, pyarrow.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pyarrow.py_buffer(b"\xff\xfe")],
)
FAR = pyarrow.array([2**62, 0])  # a date, a time or a duration that Python's types cannot hold
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
    FAR.cast(pyarrow.timestamp("us")),
    FAR.cast(pyarrow.timestamp("ns", "Mars/Olympus")),
    pyarrow.array([2**31 - 1, 0], pyarrow.int32()).cast(pyarrow.date32()),
    FAR.cast(pyarrow.time64("ns")),
    FAR.cast(pyarrow.duration("us")),
    pyarrow.StructArray.from_arrays([pyarrow.array([1, 2])] * 2, names=["a", "a"]),
]
column_names = st.sampled_from(parts("text|label|sentence1|sentence2|labels")) | texts.filter(
    lambda name: utf8(name).decode(errors="ignore") == name
)
tables = st.lists(
    st.dictionaries(st.sampled_from(["text", "label"]) | texts, json_values, max_size=4), max_size=5
)
arrow_tables = st.lists(
    st.tuples(column_names, st.sampled_from(ARROW_COLUMNS)), min_size=1, max_size=3
)
contents = {
    ".csv": grids(",") | harmed(".csv", textual) | st.binary(),
    ".tsv": grids("\t") | harmed(".tsv", textual) | st.binary(),
    ".jsonl": st.one_of(
        (tables | st.lists(json_values, max_size=3)).map(as_jsonl),
        harmed(".jsonl", textual),
        st.binary(),
    ),
    ".parquet": arrow_tables.map(as_parquet) | harmed(".parquet", bytewise) | st.binary(),
    ".conll": grids("\t") | grids(" ") | harmed(".conll", textual),
    ".json": harmed(".json", values_set) | harmed(".json", textual | values_set),
}
often = [".csv", ".csv", ".jsonl", ".jsonl", ".parquet", ".parquet", ".tsv", ".json", ".conll"]
files = st.sampled_from(often).flatmap(lambda suffix: st.tuples(st.just(suffix), contents[suffix]))

# ---------------------------------------------------------------------------- folders and names

BYTES = os.fsdecode(b"\xff")  # a name that is no UTF-8
FILE_NAMES = parts(
    """train.csv|train.tsv|train.jsonl|train.parquet|TRAIN.csv|train.CSV|train|.csv|train.xlsx|
train.csv.bak|valid.csv|val.jsonl|dev.tsv|validation.parquet|test.csv|test.jsonl|test.parquet|
a=b.csv|-.csv|train .csv|train..csv|träin 😀.csv"""
)
file_names = st.sampled_from([*FILE_NAMES, "tr\nain.csv", f"{BYTES}.csv", "x" * 250])
folders = st.dictionaries(
    file_names,
    st.sampled_from([*GOOD.values(), b"", FOLDER]) | st.one_of(*contents.values()),
    max_size=4,
)
PATHS = parts(
    """|.|..|/|//|~|a/b|a/b:c|:|a/b:|a/:c|-a/b|a//b|..a/b|a/b..c|a b/c|ü 😀|*.csv|[|train.CSV|
data.csv/|data.csv/x|data.csv/train.csv|no/data.csv|loop|loop.csv|/dev/null|/dev/null.csv|
paraphrase|paraphrase |PARAPHRASE|entities|questions|a\0b|a\0b.csv"""
)
LONG_PATHS = ["x" * 300, "x" * 300 + ".csv", "x" * 5000, "a/" + "b" * 200, "a/b" * 3000]
paths = st.one_of(
    st.sampled_from([*PATHS, *LONG_PATHS, "a/b\n", BYTES]),
    texts,
    st.tuples(texts, texts).map("/".join),
)

# ----------------------------------------------------------------------------- the command line

HUGE, LONG = 10**30, "9" * 5000
OPTIONS = f"""
--learning-rate nan inf -1 0 1e308 1e38 1e-320 x
--head-learning-rate nan inf -1 0 1e308 1e39 ''
--layer-decay nan 0 -1 1e308 1e200 1e-308
--num-train-epochs 0 -1 1.5 nan '' 2
--batch-size 0 -1 1 1000000 {HUGE} {LONG}
--gradient-accumulation-steps 0 -1 3 {HUGE}
--warmup-steps nan -1 0.5 1 1e308 inf 1e-320
--weight-decay nan -1 1e308 1e39 inf
--max-grad-norm nan 0 1e308 1e-320 inf
--save-steps -1 1 {HUGE}
--seed -1 4294967296 9223372036854775808 {HUGE}
--optim sgd rmsprop adam ''
--lr-scheduler-type cosine constant ''
--bf16 true yes ''
--tune head bias top:1 top:99 top:0 top: top:-1 top * [ '' lora ? top:² top:٢ top:{LONG} full*
--tune [!] *pooler* *position_embeddings* {"*" * 99}z 'lora head' 'full head' '* ' '*bias *.0.*'
--text-columns no '' 'text text' row label 'text label' 'text label row' 'txt no'
--label-column no '' text row lable
--checkpoint no '' full file org/name a\0 ..
--revision main '' ../..
"""
AGAIN = [("--overwrite",), ("--resume",), ("--overwrite", "--resume")]
ODD_OPTIONS = [
    *(
        (name, *value.split(" "))
        for name, *values in map(shlex.split, OPTIONS.strip().split("\n"))
        for value in values
    ),
    *AGAIN,
    ("--no-such-option",),
]
SOURCES = parts(
    """data.csv|my data ü|only train|no train|one class.csv|classes.csv|classes|bool.jsonl|
none.jsonl|list.jsonl|full|no.csv|org/name||entities"""
)
OUTPUTS = parts(
    """out|new folder/déep/out|file|file/out|full|full/out|earlier|ended|ended/|.|..||/|link|
link/out|loop|loop/out|-out|ü 😀|out/|out/.|/proc/out|/dev/null/out|out\0"""
)
odd_options = st.sampled_from(ODD_OPTIONS) | st.tuples(st.just("--tune"), texts)
in_order = st.sampled_from(["data.csv", "my data ü", "only train"])
commands = st.one_of(  # a source, an output and options
    st.tuples(in_order, st.just("out"), st.lists(odd_options, min_size=1, max_size=2)),
    st.tuples(in_order, st.just("out"), st.lists(odd_options, min_size=1, max_size=1)),
    st.tuples(
        in_order,
        st.sampled_from([*OUTPUTS, "out\n", "no/x" * 9, "x" * 250, BYTES]),
        st.lists(st.sampled_from(AGAIN), max_size=1),
    ),
    st.tuples(
        st.sampled_from([*SOURCES, f"{BYTES}.csv"]),
        st.just("out"),
        st.lists(odd_options, max_size=1),
    ),
)
