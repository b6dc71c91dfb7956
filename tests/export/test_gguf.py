"""GGUF: read back by transformers and by gguf itself, and refused where it is another model."""

import json

import gguf
import numpy as np
import pytest
import torch
from gguf.quants import dequantize
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
)

import ftkit
from ftkit.export import gguf as writing
from ftkit.export import vocabulary
from ftkit.export.vocabulary import HARD_TEXT, PRE_TOKENIZERS, find_pre_tokenizer
from tests.conftest import message
from tests.export.conftest import make_llama, make_tokenizer, move

BITS = {"f16": 16, "q8_0": 8.5, "q4_1": 5}  # a weight, its share of scale and minimum included


def fields(path) -> dict:
    reader = gguf.GGUFReader(path)
    return {name: field.contents() for name, field in reader.fields.items()}


def read(path, **options):
    return AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, **options)


@pytest.mark.parametrize("kind", BITS)
def test_transformers_reads_the_same_model(kind, save, tmp_path):
    model = make_llama(rope_theta=5e4, rms_norm_eps=1e-6, head_dim=32)
    proof = ftkit.export(save(model), tmp_path / "out.gguf", to="gguf", type=kind)
    loaded = read(tmp_path / "out.gguf", dtype=torch.float32).eval()
    assert loaded.config.rope_parameters["rope_theta"] == pytest.approx(5e4)
    assert loaded.config.rms_norm_eps == pytest.approx(1e-6)
    assert loaded.config.head_dim == 32
    assert loaded.config.tie_word_embeddings
    ids = torch.arange(3, 60)[None]
    with torch.inference_mode():
        difference = (loaded(ids).logits - model(ids).logits).abs().max()
    assert difference < 5 * proof.max_difference + 1e-6
    kept = json.loads((tmp_path / "export.json").read_text())
    assert kept == {"out.gguf": proof.to_dict()}
    assert (proof.n_texts, proof.type) == (32, kind)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("kind", BITS)
def test_each_type_has_its_bits(kind, save, tmp_path):
    ftkit.export(save(), tmp_path / "out.gguf", to="gguf", type=kind)
    tensors = {t.name: t for t in gguf.GGUFReader(tmp_path / "out.gguf").tensors}
    matrix, vector = tensors["blk.1.ffn_up.weight"], tensors["blk.0.attn_norm.weight"]
    assert 8 * matrix.n_bytes == BITS[kind] * matrix.n_elements
    assert vector.tensor_type.name == "F32"
    outer = tensors["token_embd.weight"].tensor_type.name
    assert outer == ("Q8_0" if kind == "q4_1" else kind.upper())  # as the published file of smollm2
    assert "output.weight" not in tensors


def test_queries_and_keys_lie_in_pairs(save, tmp_path):
    """As llama.cpp turns them: rows i and i + head_dim / 2 of each head are neighbours."""
    model = make_llama()
    ftkit.export(save(model), tmp_path / "out.gguf", to="gguf", type="f16")
    tensors = {t.name: t for t in gguf.GGUFReader(tmp_path / "out.gguf").tensors}
    for letter, n_heads in (("q", 4), ("k", 2)):
        own = model.state_dict()[f"model.layers.1.self_attn.{letter}_proj.weight"].numpy()
        there = tensors[f"blk.1.attn_{letter}.weight"]
        there = dequantize(there.data, there.tensor_type)
        size = len(own) // n_heads
        for head in range(n_heads):
            for i in range(size // 2):
                for half in (0, 1):
                    ours, theirs = own[head * size + i + half * size // 2], there[head * size :]
                    np.testing.assert_allclose(theirs[2 * i + half], ours, atol=1e-4)


@pytest.mark.parametrize("spread", [0.02, 0.2])
def test_a_forgotten_permutation_is_caught(spread, save, tmp_path, monkeypatch):
    """Also where attention is so even that the logits hardly show it."""
    folder = save(make_llama(initializer_range=spread))
    monkeypatch.setattr(writing, "interleave", lambda weights, n_heads: weights)
    told = message(ftkit.export, folder, tmp_path / "out" / "m.gguf", to="gguf", type="f16")
    assert told.startswith("The gguf export is refused and removed: a matrix is 1")
    assert not (tmp_path / "out").exists()


def test_a_swap_of_two_equally_large_matrices_is_caught(save, tmp_path, monkeypatch):
    honest = writing.named_tensors

    def swapped(model):
        tensors = honest(model)
        a, b = (f"blk.0.ffn_{name}.weight" for name in ("gate", "up"))
        return {**tensors, a: tensors[b], b: tensors[a]}

    monkeypatch.setattr(writing, "named_tensors", swapped)
    told = message(ftkit.export, save(), tmp_path / "m.gguf", to="gguf")
    assert "refused and removed" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_what_f16_cannot_hold_is_refused(save, tmp_path):
    model = make_llama()
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = 1e5
    folder = save(model)
    told = message(ftkit.export, folder, tmp_path / "m.gguf", to="gguf", type="f16")
    assert "refused and removed: a matrix is inf% off" in told
    assert not (tmp_path / "m.gguf").exists()


def test_an_earlier_export_outlives_a_refused_one(save, tmp_path, monkeypatch):
    folder, target = save(), tmp_path / "m.gguf"
    ftkit.export(folder, target, to="gguf", type="f16")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert set(before) == {"m.gguf", "Modelfile", "export.json"}
    assert message(ftkit.export, folder, target, to="gguf") == (
        f"{target} exists. Choose another output, or say --overwrite."
    )
    monkeypatch.setattr(writing, "interleave", lambda weights, n_heads: weights)
    message(ftkit.export, folder, target, to="gguf", overwrite=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_several_types_share_a_folder(save, tmp_path):
    folder = save()
    for kind in BITS:
        ftkit.export(folder, tmp_path / "out" / f"{kind}.gguf", to="gguf", type=kind)
    kept = json.loads((tmp_path / "out" / "export.json").read_text())
    assert [entry["type"] for entry in kept.values()] == list(BITS)
    sizes = [(tmp_path / "out" / f"{kind}.gguf").stat().st_size for kind in BITS]
    assert sizes == sorted(sizes, reverse=True)
    assert "FROM ./q4_1.gguf" in (tmp_path / "out" / "Modelfile").read_text()
    ftkit.export(folder, tmp_path / "as_folder", to="gguf")
    names = {path.name for path in (tmp_path / "as_folder").iterdir()}
    assert names == {"model.gguf", "Modelfile", "export.json"}


def test_somebody_elses_modelfile_is_kept(save, tmp_path):
    (tmp_path / "Modelfile").write_text("FROM llama3\n")
    assert message(ftkit.export, save(), tmp_path / "m.gguf", to="gguf") == (
        f"{tmp_path / 'Modelfile'} exists. Choose another folder, or say --overwrite."
    )


def test_training_that_rounding_undoes_is_refused(save, tmp_path):
    """Four bits give back the untouched model where training moved the weights by less."""
    base = save(name="base")
    tuned = make_llama()
    move(tuned, 0.02)
    folder = save(tuned, checkpoint=str(base))
    told = message(ftkit.export, folder, tmp_path / "m.gguf", to="gguf", type="q4_1")
    assert "it is not clearly nearer to the tuned model" in told
    assert told.endswith(" Take --type q8_0.")
    proof = ftkit.export(folder, tmp_path / "m.gguf", to="gguf", type="f16")
    assert proof.untouched == str(base)
    assert proof.kl_untouched > 10 * proof.kl


def test_an_untouched_model_that_is_gone_is_told(save, tmp_path):
    folder = save(checkpoint=str(tmp_path / "gone"))
    proof = ftkit.export(folder, tmp_path / "m.gguf", to="gguf")
    assert proof.kl_untouched is None
    assert "Not compared with the untouched" in str(proof)


def test_an_own_output_is_written(save, tmp_path):
    model = make_llama(tie_word_embeddings=False)
    ftkit.export(save(model), tmp_path / "m.gguf", to="gguf", type="f16")
    loaded = read(tmp_path / "m.gguf", dtype=torch.float32)
    own = model.lm_head.weight
    assert torch.allclose(loaded.lm_head.weight, own, atol=1e-4)
    assert not torch.allclose(loaded.model.embed_tokens.weight, own, atol=1e-2)


def test_the_file_speaks_of_the_tokenizer(save, tmp_path, bpe):
    model = make_llama(vocab_size=325)
    model.generation_config.eos_token_id = [0, 2]
    ftkit.export(save(model), tmp_path / "m.gguf", to="gguf")
    told = fields(tmp_path / "m.gguf")
    assert told["general.architecture"] == "llama"
    assert told["llama.context_length"] == 128
    assert told["tokenizer.ggml.pre"] == "gpt-2"
    tokens = told["tokenizer.ggml.tokens"]
    assert tokens[:320] == bpe.convert_ids_to_tokens(range(320))
    assert tokens[320:] == [f"[PAD{i}]" for i in range(320, 325)]
    types = told["tokenizer.ggml.token_type"]
    assert (types[:3], set(types[3:320]), set(types[320:])) == ([3, 3, 3], {1}, {5})
    assert told["tokenizer.ggml.eos_token_id"] == 0
    assert told["tokenizer.ggml.eot_token_id"] == 2
    assert told["tokenizer.ggml.bos_token_id"] == 1
    assert told["tokenizer.ggml.add_bos_token"] is False
    assert "tokenizer.chat_template" not in told
    stops = [x for x in (tmp_path / "Modelfile").read_text().splitlines() if "stop" in x]
    assert stops == ['PARAMETER stop "<|endoftext|>"', 'PARAMETER stop "<|im_end|>"']
    loaded = AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    text = "<|im_start|>user\nthe soup was fine<|im_end|>"
    assert loaded(text)["input_ids"] == bpe(text)["input_ids"]


def test_a_tokenizer_that_begins_by_itself_says_so(save, tmp_path):
    from tokenizers import processors

    tokenizer = make_tokenizer()
    template = processors.TemplateProcessing("<|im_start|> $A", None, [("<|im_start|>", 1)])
    tokenizer.backend_tokenizer.post_processor = template
    ftkit.export(save(tokenizer=tokenizer), tmp_path / "m.gguf", to="gguf")
    told = fields(tmp_path / "m.gguf")
    assert told["tokenizer.ggml.add_bos_token"] is True
    assert told["tokenizer.ggml.add_eos_token"] is False


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_every_rule_of_splitting_keeps_its_name(name, save, tmp_path):
    tokenizer = make_tokenizer(PRE_TOKENIZERS[name])
    assert find_pre_tokenizer(tokenizer) == name
    ftkit.export(save(tokenizer=tokenizer), tmp_path / "m.gguf", to="gguf")
    assert fields(tmp_path / "m.gguf")["tokenizer.ggml.pre"] == name


def test_another_spelling_of_a_rule_is_known(save):
    digits = pre_tokenizers.Digits(individual_digits=True)
    spelled = pre_tokenizers.Sequence(
        [digits, pre_tokenizers.Sequence([pre_tokenizers.ByteLevel(False, trim_offsets=False)])]
    )
    assert find_pre_tokenizer(make_tokenizer(spelled)) == "smollm"


def test_tokenizers_that_do_not_fit_are_refused(save, tmp_path, tokenizer):
    def refused(tokenizer, model=None) -> str:
        name = f"model-{len(list(tmp_path.iterdir()))}"
        folder = save(model or make_llama(), tokenizer, name=name)
        return message(ftkit.export, folder, tmp_path / "m.gguf", to="gguf")

    assert "does not merge bytes (byte-level BPE)" in refused(tokenizer)  # WordPiece
    pieces = {"<unk>": 0, "▁": 1, "a": 2, **{f"<0x{i:02X}>": 3 + i for i in range(256)}}
    inner = Tokenizer(models.BPE(vocab=pieces, merges=[], byte_fallback=True, unk_token="<unk>"))
    sentencepiece = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<unk>")
    assert "does not merge bytes" in refused(sentencepiece)
    odd = make_tokenizer(
        pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex("oo"), "isolated"),
                pre_tokenizers.ByteLevel(False, use_regex=False),
            ]
        )
    )
    assert "splits text by a rule which has no name here; expected that of one of: gpt-2" in (
        refused(odd)
    )
    lower = make_tokenizer()
    lower.backend_tokenizer.normalizer = normalizers.Lowercase()
    assert "rewrites text first (Lowercase)" in refused(lower)
    larger = make_tokenizer()
    larger.add_tokens(["<tool>"])
    assert "has 321 tokens, and the embeddings 320 rows" in refused(larger)


def test_models_that_do_not_fit_are_refused(save, tmp_path, bpe):
    def refused(model) -> str:
        folder = save(model, name=f"model-{len(list(tmp_path.iterdir()))}")
        return message(ftkit.export, folder, tmp_path / "m.gguf", to="gguf")

    shape = {"vocab_size": 320, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}
    gpt2 = GPT2LMHeadModel(GPT2Config(**shape, pad_token_id=0, eos_token_id=0, bos_token_id=1))
    assert refused(gpt2).startswith("GGUF is written for the Llama family (LlamaForCausalLM, Mist")
    scaled = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
    told = refused(make_llama(rope_parameters=scaled, attention_bias=True, hidden_act="gelu"))
    assert 'Its positions are of the kind "linear"; expected "default".' in told
    assert 'Its activation is "gelu"' in told
    assert "It has 8 biases, such as model.layers.0.self_attn." in told


def test_a_sliding_window_bounds_the_context(save, tmp_path):
    shape = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 100}
    ids = {"bos_token_id": 1, "eos_token_id": 0, "pad_token_id": 0}
    torch.manual_seed(0)
    model = MistralForCausalLM(
        MistralConfig(**shape, **heads, **ids, max_position_embeddings=256, head_dim=16)
    )
    proof = ftkit.export(save(model), tmp_path / "m.gguf", to="gguf")
    assert fields(tmp_path / "m.gguf")["llama.context_length"] == 100
    assert proof.notes == (
        "The context is 100 tokens in place of 256: llama.cpp gives this architecture no sliding "
        "window.",
    )


def test_rows_that_are_no_blocks_stay_in_f16(save, tmp_path):
    model = make_llama(intermediate_size=48)
    proof = ftkit.export(save(model), tmp_path / "m.gguf", to="gguf", type="q4_1")
    assert proof.notes == ("2 matrices stay in f16: their rows are no multiple of 32 wide.",)
    tensors = {t.name: t.tensor_type.name for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    assert tensors["blk.0.ffn_down.weight"] == "F16"


def test_a_tokenizer_read_otherwise_is_refused(save, tmp_path, monkeypatch):
    monkeypatch.setattr(vocabulary, "find_pre_tokenizer", lambda tokenizer: "llama-bpe")
    told = message(ftkit.export, save(), tmp_path / "m.gguf", to="gguf")
    assert told.startswith(
        f"The gguf export is refused and removed: its tokenizer cuts {HARD_TEXT[:60]!r}…"
    )


def test_own_texts_are_compared(save, tmp_path):
    folder = save()
    texts = ["the soup was fine", "the room was cold today"]
    proof = ftkit.export(folder, tmp_path / "m.gguf", to="gguf", texts=texts)
    assert proof.n_texts == 2
    for wrong in ([], "one text"):
        told = message(ftkit.export, folder, tmp_path / "n.gguf", to="gguf", texts=wrong)
        assert told == f"texts is {wrong!r}; expected a list of one or more texts."
