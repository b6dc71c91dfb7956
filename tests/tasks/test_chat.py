"""Chat: forms of conversations, the template's own turns, cuts, and answers in batches."""

import re

import pytest
import torch
from datasets import Dataset, DatasetDict
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import ftkit
from ftkit.tasks.chat import EndMarkerWarning
from ftkit.tasks.chats.messages import find_form, message_problems, to_messages
from ftkit.tasks.chats.templates import (
    TemplateWarning,
    encode_conversation,
    encode_prompt,
    end_ids,
    unasked_text,
)
from tests.conftest import message
from tests.tasks.chat_templates import SPECIAL, TEMPLATES

TURNS = [
    {"role": "user", "content": "Where is the cat?"},
    {"role": "assistant", "content": "On the mat."},
    {"role": "user", "content": "Still on the mat?"},
    {"role": "assistant", "content": "No.\nIt left at 5."},
]
SYSTEM = {"role": "system", "content": "Be brief."}


def chat_tokenizer(template: str | None = None) -> PreTrainedTokenizerFast:
    """Bytes as tokens, and the special tokens of all templates."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(list(SPECIAL))
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        chat_template=template,
        model_max_length=400,
    )


def tiny_llama(tokenizer, **options) -> LlamaForCausalLM:
    """Two layers, random, the same in every test."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2}
    config = LlamaConfig(vocab_size=len(tokenizer), **sizes, **heads, **options)
    config.pad_token_id, config.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    return LlamaForCausalLM(config).eval()


def supervised(tokenizer, ids, mask) -> str:
    return tokenizer.decode([token for token, own in zip(ids, mask, strict=True) if own])


def splits(*rows: dict) -> DatasetDict:
    return DatasetDict({"train": Dataset.from_list(list(rows))})


@pytest.mark.parametrize("kind", TEMPLATES)
@pytest.mark.parametrize("system", [False, True])
def test_labels_are_the_assistants_texts_and_their_end_markers(kind, system):
    template, end = TEMPLATES[kind]
    tokenizer = chat_tokenizer(template)
    messages = [SYSTEM, *TURNS] if system else TURNS
    if system and kind in ("Mistral", "Gemma"):
        said = message(encode_conversation, tokenizer, messages)
        assert said.startswith("the chat template refuses the turns system, user, assistant")
        return
    ids, mask = encode_conversation(tokenizer, messages)
    written = supervised(tokenizer, ids, mask)
    answers = [turn["content"] for turn in TURNS if turn["role"] == "assistant"]
    assert re.sub(r"\s+", "", written) == re.sub(r"\s+", "", "".join(a + end for a in answers))
    assert ids == tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]
    assert end_ids(tokenizer)[0] == tokenizer.convert_tokens_to_ids(end)


@pytest.mark.parametrize("kind", TEMPLATES)
def test_what_is_learned_is_what_follows_the_prompt(kind):
    """The ids of the prompt, as at inference, and the supervised ones make the conversation."""
    tokenizer = chat_tokenizer(TEMPLATES[kind][0])
    ids, mask = encode_conversation(tokenizer, TURNS[:2])
    prompt = encode_prompt(tokenizer, TURNS[:1])
    if kind == "Qwen":  # its prompt opens thoughts that a finished turn has not
        prompt = [token for token, own in zip(ids, mask, strict=True) if not own][:-1]
    first = mask.index(1)
    assert ids[:first] == prompt[:first]
    assert first == len(prompt)


def test_a_template_that_ends_no_turn_is_refused():
    tokenizer = chat_tokenizer("{% for m in messages %}{{ m['content'] + '\n' }}{% endfor %}")
    said = message(encode_conversation, tokenizer, TURNS)
    assert said.startswith("the chat template ends the assistant's turn by no marker")


def test_without_a_template_chatml_is_taken_and_told():
    tokenizer = chat_tokenizer()
    with pytest.warns(TemplateWarning, match="ChatML takes its place, each turn ended by <.im_end"):
        encoded = ftkit.Chat().encode(splits({"messages": TURNS}), tokenizer)
    first = encoded["train"][0]
    written = supervised(tokenizer, first["input_ids"], [x != -100 for x in first["labels"]])
    assert written == "On the mat.<|im_end|>No.\nIt left at 5.<|im_end|>"


def test_the_unasked_system_turn_is_shown():
    assert unasked_text(chat_tokenizer(TEMPLATES["Qwen"][0])).startswith("<|im_start|>system\nYou")


FORMS = {
    "messages": {"messages": TURNS},
    "ShareGPT": {
        "conversations": [
            {"from": {"user": "human", "assistant": "gpt"}[turn["role"]], "value": turn["content"]}
            for turn in TURNS
        ]
    },
    "Alpaca": {"instruction": "Add.", "input": "", "output": "3"},
    "prompt and completion": {"prompt": "Add 1 and 2.", "completion": "3"},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_recognised_by_its_columns(form):
    row = FORMS[form]
    assert find_form(list(row)) == form
    assert message_problems(to_messages(row, form)) == []
    ftkit.Chat().check(splits(row))


def test_alpacas_input_is_a_paragraph_of_its_own():
    row = {"instruction": "Add.", "input": "1, 2", "output": "3"}
    assert to_messages(row, "Alpaca")[0]["content"] == "Add.\n\n1, 2"


def turn(role: str, content: str = "x") -> dict[str, str]:
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([turn("user")], "has no turn of the assistant"),
        ([turn("user"), turn("assistant", " ")], "turn 2, the assistant's, is empty"),
        ([turn("assistant"), turn("user")], "turn 1 is the assistant's; expected the user's"),
        ([turn("user"), turn("assistant"), turn("user")], "ends with the user's turn; expected"),
        ([turn("user"), turn("user"), turn("assistant")], "turn 2 is the user's; expected the ass"),
        ([turn("user"), turn("asistant")], 'has the role "asistant". Did you mean "assistant"?'),
        ([turn("user"), turn("system"), turn("assistant")], "turn 2 is the system's; expected"),
        ([turn("system")], "has no turn of the assistant"),
    ],
)
def test_malformed_rows_are_told(messages, said):
    wrong = splits({"messages": TURNS}, {"messages": messages})
    told = message(ftkit.Chat().check, wrong)
    assert said in told
    assert told.startswith('split "train", index 1: ')
    assert "index 0" not in told


def test_other_columns_are_told_with_the_forms():
    told = message(ftkit.Chat().check, splits({"text": "a", "label": "b"}))
    assert "holds text, label." in told
    assert "Alpaca: instruction, output" in told


@pytest.fixture
def tokenizer():
    return chat_tokenizer(TEMPLATES["ChatML"][0])


def test_a_cut_answer_is_told_and_a_row_without_a_label_is_refused(tokenizer):
    task, rows = ftkit.Chat(), splits({"messages": TURNS}, {"messages": TURNS[:2]})
    whole = len(task.encode(rows, tokenizer)["train"][0]["input_ids"])
    with (
        pytest.warns(EndMarkerWarning, match='1 of 2 rows of "train" are cut within an answer'),
        pytest.warns(ftkit.tasks.truncation.TruncationWarning),
    ):
        cut = task.encode(rows, tokenizer, max_length=whole - 5)
    assert len(cut["train"][0]["input_ids"]) == whole - 5
    told = message(task.encode, rows, tokenizer, max_length=10)
    assert "no token of the assistant is left within 10 tokens" in told


def test_a_pad_that_is_the_end_of_text_does_not_hide_the_end(tokenizer):
    tokenizer.pad_token = tokenizer.eos_token = "<|im_end|>"
    encoded = ftkit.Chat().encode(splits({"messages": TURNS}, {"messages": TURNS[:2]}), tokenizer)
    batch = ftkit.data.collate(encoded["train"], [0, 1], tokenizer.pad_token_id)
    ends = (batch["labels"] == tokenizer.eos_token_id).sum(-1)
    assert ends.tolist() == [2, 1]
    model = tiny_llama(tokenizer)
    with torch.inference_mode():
        rows = [ftkit.data.collate(encoded["train"], [i]) for i in (0, 1)]
        alone = [model(**row).loss * (row["labels"] != -100).sum() for row in rows]
        counts = (batch["labels"] != -100).sum()
        torch.testing.assert_close(model(**batch).loss * counts, sum(alone))


def test_answers_in_a_batch_are_those_of_each_alone(tokenizer):
    task, model = ftkit.Chat(max_new_tokens=12), tiny_llama(tokenizer)
    task.adapt(model, tokenizer)
    texts = ["Hi", "Where is the cat on the mat?", "No", [SYSTEM, *TURNS[:3]]]
    together = ftkit.predict(model, texts, task, tokenizer, bf16=False)
    alone = [ftkit.predict(model, [text], task, tokenizer, bf16=False)[0] for text in texts]
    assert together == alone


def test_prompts_that_do_not_end_with_the_user_are_told(tokenizer):
    told = message(ftkit.Chat().encode_texts, ["Hi", TURNS], tokenizer)
    assert told == "text 2 ends with the assistant's turn; expected the user's."


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing. is deprecated:FutureWarning")
def test_loss_and_gradient_are_trls(tmp_path):
    """In a template that writes nothing after the end marker: there TRL's labels are ours."""
    trl = pytest.importorskip("trl", reason="trl is in the test extra")
    tokenizer = chat_tokenizer(TEMPLATES["Llama 3"][0])
    said = ("Where is the cat?", "On the mat."), ("Add 1 and 2.", "3"), ("Hi", "Hello, you.")
    rows = [{"prompt": [turn("user", q)], "completion": [turn("assistant", a)]} for q, a in said]
    encoded = ftkit.Chat().encode(splits(*rows), tokenizer)["train"]
    model = tiny_llama(tokenizer)
    loss = ftkit.Chat().loss(model, ftkit.data.collate(encoded, [0, 1, 2], tokenizer.pad_token_id))
    loss.backward()
    ours = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    config = trl.SFTConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=3,
        activation_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = trl.SFTTrainer(
        model, args=config, train_dataset=splits(*rows)["train"], processing_class=tokenizer
    )
    trainer.model.eval()
    theirs = trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader())))
    torch.testing.assert_close(theirs.cpu(), loss.detach(), rtol=1e-5, atol=1e-5)
    theirs.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, ours[name], rtol=1e-4, atol=1e-5)
