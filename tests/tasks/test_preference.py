"""Preferences: DPO against its formula and TRL's, the reference, forms and faults of pairs."""

import math

import pytest
import torch
from torch.nn.functional import logsigmoid

import ftkit
from ftkit.tasks.preference import sequence_log_probability
from tests.conftest import message
from tests.tasks.chat_templates import TEMPLATES
from tests.tasks.test_chat import TURNS, chat_tokenizer, splits, tiny_llama, turn

PAIRS = [
    {"prompt": "Where is the cat?", "chosen": "On the mat.", "rejected": "I do not care, find it!"},
    {"prompt": TURNS[:3], "chosen": [turn("assistant", "No.")], "rejected": "Yes, it is."},
    {"prompt": "Add 1 and 2.", "chosen": "3", "rejected": "33"},
]


@pytest.fixture
def tokenizer():
    return chat_tokenizer(TEMPLATES["ChatML"][0])


@pytest.fixture
def encoded(tokenizer):
    return ftkit.Preference().encode(splits(*map(as_messages, PAIRS)), tokenizer)


def as_messages(row: dict) -> dict:
    roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    return {k: [turn(roles[k], v)] if isinstance(v, str) else v for k, v in row.items()}


def by_hand(model, ids: list[int], labels: list[int]) -> torch.Tensor:
    """The log-probability of the labelled tokens, one by one."""
    chances = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(chances[i - 1, x] for i, x in enumerate(labels) if x != -100)


def test_labels_look_at_the_last_answer_alone(encoded, tokenizer):
    row = encoded["train"][1]
    written = tokenizer.decode([x for x in row["labels"] if x != -100])
    assert written == "No.<|im_end|>"
    written = tokenizer.decode([x for x in row["rejected_labels"] if x != -100])
    assert written == "Yes, it is.<|im_end|>"


def test_log_probabilities_are_those_of_each_token_by_hand(encoded, tokenizer):
    model, task = tiny_llama(tokenizer), ftkit.Preference()
    batch = ftkit.data.collate(encoded["train"], [0, 1, 2], tokenizer.pad_token_id)
    chosen, rejected = task.log_probabilities(model, batch)
    for i, row in enumerate(encoded["train"]):
        hand = by_hand(model, row["input_ids"], row["labels"])
        torch.testing.assert_close(chosen[i], hand)
        hand = by_hand(model, row["rejected_input_ids"], row["rejected_labels"])
        torch.testing.assert_close(rejected[i], hand)


def test_the_loss_begins_at_ln_2_and_is_the_papers_formula(encoded, tokenizer):
    model, task = tiny_llama(tokenizer), ftkit.Preference(beta=0.3)
    rows = task.add_reference(model, encoded)
    batch = ftkit.data.collate(rows["train"], [0, 1, 2], tokenizer.pad_token_id)
    assert task.loss(model, batch).item() == pytest.approx(math.log(2), abs=1e-6)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    hand = []
    for row in rows["train"]:
        gains = [
            by_hand(model, row[f"{side}input_ids"], row[f"{side}labels"]) - row[f"ref_{name}_logps"]
            for side, name in (("", "chosen"), ("rejected_", "rejected"))
        ]
        hand.append(-logsigmoid(0.3 * (gains[0] - gains[1])))
    loss = task.loss(model, batch)
    torch.testing.assert_close(loss, torch.stack(hand).mean())
    report = ftkit.evaluate(model, rows["train"], task, bf16=False)
    assert report.metrics["loss"] == pytest.approx(loss.item(), abs=1e-5)


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing. is deprecated:FutureWarning")
def test_loss_and_gradient_are_trls(tmp_path):
    """In a template that writes nothing after the end marker: there TRL's labels are ours."""
    trl = pytest.importorskip("trl", reason="trl is in the test extra")
    tokenizer = chat_tokenizer(TEMPLATES["Llama 3"][0])
    encoded = ftkit.Preference().encode(splits(*map(as_messages, PAIRS)), tokenizer)
    policy, reference = tiny_llama(tokenizer), tiny_llama(tokenizer)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    task = ftkit.Preference(beta=0.2)
    rows = task.add_reference(reference, encoded)
    loss = task.loss(policy, ftkit.data.collate(rows["train"], [0, 1, 2], tokenizer.pad_token_id))
    loss.backward()
    ours = {name: p.grad.clone() for name, p in policy.named_parameters()}
    policy.zero_grad()
    config = trl.DPOConfig(
        output_dir=str(tmp_path),
        beta=0.2,
        per_device_train_batch_size=3,
        activation_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = trl.DPOTrainer(
        policy,
        reference,
        args=config,
        train_dataset=splits(*map(as_messages, PAIRS))["train"],
        processing_class=tokenizer,
    )
    trainer.model.eval()
    batch = next(iter(trainer.get_train_dataloader()))
    theirs = trainer.compute_loss(trainer.model, batch)
    torch.testing.assert_close(theirs.cpu(), loss.detach(), rtol=1e-5, atol=1e-5)
    theirs.backward()
    for name, parameter in policy.named_parameters():
        torch.testing.assert_close(parameter.grad, ours[name], rtol=1e-4, atol=1e-5)


def test_without_a_reference_the_way_is_told(encoded, tokenizer):
    batch = ftkit.data.collate(encoded["train"], [0], tokenizer.pad_token_id)
    told = message(ftkit.Preference().loss, tiny_llama(tokenizer), batch)
    assert told.endswith("encoded = task.add_reference(model, encoded).")


def test_the_prompt_may_stand_in_both_answers(tokenizer):
    chosen = [*TURNS[:1], turn("assistant", "On the mat.")]
    rejected = [*TURNS[:1], turn("assistant", "Away.")]
    task = ftkit.Preference()
    implicit = task.encode(splits({"chosen": chosen, "rejected": rejected}), tokenizer)
    explicit = {"prompt": TURNS[:1], "chosen": chosen[1:], "rejected": rejected[1:]}
    assert implicit["train"][0] == task.encode(splits(explicit), tokenizer)["train"][0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rejected": "On the mat."}, "chosen and rejected are equal."),
        ({"chosen": " "}, "chosen: turn 2, the assistant's, is empty."),
        ({"prompt": [turn("user"), turn("assistant")]}, "ends with the assistant's turn; expected"),
    ],
)
def test_faulty_pairs_are_told(change, said):
    row = as_messages(PAIRS[0] | change)
    told = message(ftkit.Preference().check, splits(as_messages(PAIRS[2]), row))
    assert told.startswith('split "train", index 1: ')
    assert said in told


def test_log_probabilities_leave_ignored_places_out():
    logits = torch.randn(2, 4, 7)
    labels = torch.tensor([[3, -100, 5, -100], [-100] * 4])
    found = sequence_log_probability(logits, labels)
    chances = logits.log_softmax(-1)
    torch.testing.assert_close(found[0], chances[0, 0, 3] + chances[0, 2, 5])
    assert found[1] == 0


@pytest.mark.parametrize("lora", [False, True])
def test_training_makes_the_chosen_answers_likelier_than_the_rejected(encoded, tokenizer, lora):
    task, model = ftkit.Preference(beta=0.5), tiny_llama(tokenizer)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tuned = ftkit.add_lora(model, r=4) if lora else model
    config = ftkit.TrainingConfig(
        learning_rate=1e-2, num_train_epochs=6, batch_size=3, bf16=False, reuse_frozen=False
    )
    history = ftkit.train(tuned, encoded, task, config)
    assert history.steps[0].loss == pytest.approx(math.log(2), abs=1e-4)
    assert history.steps[-1].loss < 0.5
    reference = tiny_llama(tokenizer)
    assert all(torch.equal(before[name], x) for name, x in reference.state_dict().items())
    rows = task.add_reference(reference, encoded)
    report = ftkit.evaluate(tuned, rows["train"], task, bf16=False)
    assert report.metrics["rewards/accuracies"] == 1.0
    assert report.metrics["rewards/margins"] > 0
