"""smollm2: what the conversion of a GGUF file keeps, and the facts of the published model."""

import json
import math
from pathlib import Path

import gguf
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers.convert_slow_tokenizer import bytes_to_unicode

import ftkit
from ftkit.models.gguf import convert
from ftkit.paths import bundled
from tests.conftest import need_fetched

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
SPACES = "ĠĠ"
TEMPLATE = "{% for m in messages %}{{ '<|im_start|>' + m['content'] + '<|im_end|>' }}{% endfor %}"
NAMES = {  # transformers' name for a module within a layer: GGUF's
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
TASK = ftkit.CausalLM(("text",))


def gguf_name(name: str) -> str:
    """Return llama.cpp's name for a parameter of `LlamaForCausalLM`."""
    if not name.startswith("model.layers."):
        tops = {"model.embed_tokens": "token_embd", "model.norm": "output_norm"}
        return tops[name.removesuffix(".weight")] + ".weight"
    layer, _, module = name.removeprefix("model.layers.").partition(".")
    return f"blk.{layer}.{NAMES[module.removesuffix('.weight')]}.weight"


def interleave(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Put the two halves of each head's rows in turn, as llama.cpp's rotation wants them."""
    rows, columns = weight.shape
    halves = weight.view(heads, 2, rows // heads // 2, columns)
    return halves.transpose(1, 2).reshape(rows, columns)


@pytest.fixture(scope="module")
def tiny() -> LlamaForCausalLM:
    """Two layers, 32 wide, its embeddings its head; the weights of Q4_1 rows, as read again."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=260,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        rope_theta=5000.0,
        tie_word_embeddings=True,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def source(tiny, tmp_path_factory) -> Path:
    """A GGUF file of the tiny model, its matrices rounded to four bits; `tiny` is rounded too."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.Q4_1.gguf"
    config, writer = tiny.config, gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(5000.0)
    writer.add_rope_dimension_count(8)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    tokens = [*SPECIAL, *bytes_to_unicode().values(), SPACES]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)))
    writer.add_token_merges(["Ġ Ġ"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    for name, parameter in tiny.named_parameters():
        heads = {"q_proj": 4, "k_proj": 2}.get(name.split(".")[-2])
        values = interleave(parameter.data, heads) if heads else parameter.data
        if parameter.dim() == 1:
            writer.add_tensor(gguf_name(name), values.numpy())
            continue
        kind = gguf.GGMLQuantizationType.Q4_1
        packed = gguf.quantize(values.numpy(), kind)
        writer.add_tensor(gguf_name(name), packed, raw_dtype=kind)
        rounded = torch.from_numpy(
            gguf.dequantize(gguf.quantize(parameter.data.numpy(), kind), kind)
        )
        parameter.data.copy_(rounded)  # rows are rounded one by one: their order changes nothing
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def folder(source, tmp_path_factory) -> Path:
    """The folder that the file is converted to."""
    path = tmp_path_factory.mktemp("converted")
    convert(source, path)
    return path


def test_plain_transformers_computes_what_the_rounded_weights_say(tiny, folder):
    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.randint(260, (3, 20), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(model(ids).logits, tiny(ids).logits)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert "quantization_config" not in (folder / "config.json").read_text()


def test_it_is_saved_and_loaded_again(folder, tmp_path):
    tokenizer, model = ftkit.load_pretrained(folder, TASK)
    ftkit.save_pretrained(tmp_path / "out", model, tokenizer, TASK)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out", attn_implementation="eager")
    ids = torch.arange(20)[None]
    with torch.inference_mode():
        assert torch.equal(model(ids).logits, again(ids).logits)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").get_vocab() == tokenizer.get_vocab()


def test_digits_are_cut_off_first(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.tokenize("a  5") == ["a", SPACES, "5"]
    assert tokenizer.tokenize("a  b") == ["a", "Ġ", "Ġ", "b"]


def test_what_the_file_says_of_its_tokens_is_kept(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer("<|im_start|>é<|im_end|>").input_ids[0::3] == [1, 2]
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|im_end|>")
    assert (tokenizer.bos_token, tokenizer.unk_token) == ("<|im_start|>", "<|endoftext|>")
    assert tokenizer.chat_template == TEMPLATE
    assert tokenizer.model_max_length == 64
    text = "Grüße, 12 Äpfel! 苹果 🍎\n\tend"
    assert tokenizer.decode(tokenizer(text).input_ids) == text


# The published model, where it is fetched ---------------------------------------------------------

ANSWERS = {  # greedy, 20 tokens at most; wherever two tokens compete they are 0.06 apart or more
    "What is the capital of France?": "The capital of France is Paris.<|im_end|>",
    "What is 2 + 2?": "The answer to this classic math problem is 4.<|im_end|>",
    "What do bees make?": "Bees are incredibly complex creatures with a remarkable array of "
    "adaptations that enable them to thrive in the vast",
    "Who wrote Hamlet?": "The Bard's own son, William Shakespeare, penned the iconic play "
    '"Hamlet" in 1',
    "What is the opposite of hot?": "The opposite of hot is cold. This is a fundamental concept in "
    "science and technology, where heat is",
    "How many days are there in a week?": "A week is approximately 7 days.<|im_end|>",
    "What is H2O?": "Water is a fundamental element essential for life on Earth. It's a crucial "
    "component of the Earth's",
    "What is the largest planet in our solar system?": "The largest planet in our solar system is "
    "Neptune, but it's actually Uranus. However, Uranus is",
    "What colour is the sky?": "The sky is a beautiful shade of blue. It's a reflection of the "
    "Earth's atmosphere, composed",
    "List two fruits.": "Here are two fruits that are both delicious and nutritious:\n\n* Banana\n"
    "* Apple\n",
}


@pytest.fixture(scope="module")
def smollm2():
    """Tokenizer and model."""
    need_fetched("smollm2")
    return ftkit.load_pretrained("smollm2", TASK)


@pytest.mark.slow
def test_smollm2_is_of_the_published_shape(smollm2):
    tokenizer, model = smollm2
    config = model.config
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert (config.num_hidden_layers, config.hidden_size) == (30, 576)
    assert (config.num_attention_heads, config.num_key_value_heads) == (9, 3)
    assert config.rope_parameters["rope_theta"] == 100_000
    assert (len(tokenizer), tokenizer.model_max_length) == (49_152, 8_192)
    assert model.generation_config.eos_token_id == 2
    assert [model.config.bos_token_id, model.config.eos_token_id] == [1, 2]
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("1234 in 2025", [33, 34, 35, 36, 281, 216, 34, 32, 34, 37]),
        ("[\n    12,\n    7]", [75, 2367, 33, 34, 28, 2367, 39, 77]),
        ("hello 😀🏠", [28120, 40303, 218, 10813, 233, 250]),
        ("手机电池坏了", [27898, 229, 14483, 135, 16821, 130, 177, 126, 250, 46846, 233, 46025]),
        ("<|im_start|>user\nhi<|im_end|>\n", [1, 4093, 198, 6004, 2, 198]),
        ("don't", [12420, 982]),
        ("<|endoftext|><repo_name>", [0, 3]),
    ],
)
def test_smollm2_cuts_text_as_published(smollm2, text, ids):
    tokenizer, _ = smollm2
    assert tokenizer(text).input_ids == ids
    assert tokenizer.decode(ids) == text


@pytest.mark.slow
def test_smollm2_writes_a_system_turn_that_nobody_wrote(smollm2):
    tokenizer, _ = smollm2
    messages = [{"role": "user", "content": "Hi"}]
    assert tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize("question", ANSWERS)
def test_smollm2_answers(smollm2, question):
    tokenizer, model = smollm2
    batch = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    output = model.generate(**batch, max_new_tokens=20, do_sample=False)
    assert tokenizer.decode(output[0, batch["input_ids"].shape[1] :]) == ANSWERS[question]


def bits_per_character(tokenizer, model, texts: list[str], begin: int) -> float:
    """Return how many bits a model needs for a character of texts, each from its beginning."""
    nats = 0.0
    for text in texts:
        ids = torch.tensor([[begin, *tokenizer(text, add_special_tokens=False).input_ids]])
        with torch.inference_mode():
            nats += float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
    return nats / math.log(2) / sum(map(len, texts))


@pytest.mark.slow
def test_smollm2_reads_our_fables_better_than_the_story_model(smollm2):
    lines = (bundled("stories") / "test.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["story"] for line in lines]
    small = ftkit.load_pretrained("tiny-stories-gpt", TASK)
    large, little = bits_per_character(*smollm2, texts, 0), bits_per_character(*small, texts, 0)
    card = (bundled("models") / "smollm2" / "README.md").read_text(encoding="utf-8")
    assert f"{large:.2f} bits a character; `tiny-stories-gpt` needs {little:.2f}" in card
    assert large < little


@pytest.mark.slow
def test_smollm2_is_saved_and_loads_in_plain_transformers(smollm2, tmp_path):
    tokenizer, model = smollm2
    ftkit.save_pretrained(tmp_path / "out", model, tokenizer, TASK)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out", attn_implementation="eager")
    batch = AutoTokenizer.from_pretrained(tmp_path / "out")("The cat", return_tensors="pt")
    with torch.inference_mode():
        assert torch.equal(model(**batch).logits, again(**batch).logits)
