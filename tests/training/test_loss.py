"""What a run minimises: the mean over what the task says, whatever wraps the model."""

import copy

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn.functional import cross_entropy
from transformers import BartConfig, BartForCausalLM, BertConfig, BertForMaskedLM, GPT2LMHeadModel

import ftkit
from ftkit.data.batches import collate
from ftkit.training.loss import TrainingLoss, is_causal
from tests.conftest import message
from tests.training.test_run import causal_batches, config, largest_difference, weights

SGD = {"optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 100.0}
CAUSAL = ftkit.CausalLM(("text",))


def compiled(model):
    return torch.compile(model, backend="eager")


def renamed(model):
    """As FSDP does: a subclass with a name of its own."""
    model.__class__ = type("FSDPModelOfMine", (type(model),), {})
    return model


class Parallel(torch.nn.Module):
    """As DataParallel does: the model is an attribute."""

    def __init__(self, model):
        super().__init__()
        self.module, self.config = model, model.config

    def forward(self, **inputs):
        return self.module(**inputs)


WRAPPERS = {"compiled": compiled, "renamed": renamed, "parallel": Parallel, "lora": ftkit.add_lora}


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("task", [None, CAUSAL], ids=["no task", "task"])
@pytest.mark.parametrize("wrapper", ["compiled", "renamed", "parallel"])
def test_a_wrapped_causal_model_has_the_losses_of_the_plain_one(wrapper, task):
    """Eight micro-batches of ragged rows: a first token counted as a label would show."""
    model, dataset = causal_batches()
    dataset = dataset.add_column("attention_mask", [[1] * len(r) for r in dataset["input_ids"]])
    other, options = copy.deepcopy(model), {**SGD, "reuse_frozen": False}
    plain = ftkit.TrainingRun(model, dataset, config(**options))
    options = config(gradient_accumulation_steps=8, **options)
    wrapped = ftkit.TrainingRun(WRAPPERS[wrapper](other), dataset, options, task=task)
    assert [s.loss for s in wrapped] == pytest.approx([s.loss for s in plain], abs=1e-5)
    mine = dict(zip(weights(model), weights(wrapped.model).values(), strict=True))
    assert largest_difference(mine, weights(model)) < 1e-6


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")
def test_what_is_causal_is_known_through_all_wrappers(model):
    gpt, _ = causal_batches()
    for wrap in WRAPPERS.values():
        assert is_causal(wrap(copy.deepcopy(gpt)))
        assert not is_causal(wrap(copy.deepcopy(model)))
    assert is_causal(compiled(renamed(Parallel(ftkit.add_lora(copy.deepcopy(gpt))))))
    small = {"vocab_size": 20, "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    assert not is_causal(BertForMaskedLM(BertConfig(**small, intermediate_size=8)))


def test_a_causal_model_that_compares_each_token_with_itself_is_trained_on_the_next():
    """`BartForCausalLM` does not shift its labels: its own loss would teach it to copy."""
    torch.manual_seed(0)
    sizes = {"d_model": 16, "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 8}
    model = BartForCausalLM(BartConfig(vocab_size=50, **sizes, dropout=0.0)).eval()
    _, dataset = causal_batches()
    dataset = dataset.add_column("attention_mask", [[1] * len(r) for r in dataset["input_ids"]])
    run = ftkit.TrainingRun(model, dataset, config(gradient_accumulation_steps=4), task=CAUSAL)
    batch = collate(dataset, run.rows_of_step(0), model.config.pad_token_id)
    labels = batch.pop("labels")[:, 1:]
    with torch.no_grad():
        logits = model(**batch).logits[:, :-1]
    by_hand = cross_entropy(logits.flatten(0, 1), labels.flatten())
    with pytest.warns(ftkit.TrainingWarning, match="encoder_attn"):  # there is no encoder
        assert next(run).loss == pytest.approx(by_hand.item(), abs=1e-5)


def test_spans_are_counted_by_rows(model, encoded):
    rows = encoded["train"].remove_columns("labels")
    rows = rows.add_column("start_positions", [1] * len(rows))
    rows = rows.add_column("end_positions", [2] * len(rows))
    batch = collate(rows, [0, 1, 2])
    task = ftkit.QuestionAnswering()
    assert TrainingLoss(model, rows, config()).weight(batch) == 3
    assert TrainingLoss(model, rows, config(), task).weight(batch) == 3


@pytest.fixture
def unbalanced(encoded):
    """Ten rows of the first class, twenty-eight of the second."""
    return encoded["train"].select([*range(10), *range(28, 56)])


@pytest.mark.parametrize("given", ["balanced", (1.0, 5.0), (0.2, 1.0), [3, 1]])
def test_class_weights_are_those_of_torch_however_the_batch_is_cut(model, unbalanced, given):
    """One hand-written step a batch, with CrossEntropyLoss(weight=), against 1, 2 and 4 parts."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    labels = np.array(unbalanced["labels"])
    balanced = compute_class_weight("balanced", classes=np.unique(labels), y=labels)
    expected = torch.tensor(balanced if given == "balanced" else given, dtype=torch.float32)
    by_hand = copy.deepcopy(model).train()
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.1)
    options = {**SGD, "class_weights": given, "lr_scheduler_type": "constant"}
    runs = [
        ftkit.TrainingRun(
            copy.deepcopy(model), unbalanced, config(gradient_accumulation_steps=n, **options)
        )
        for n in (1, 2, 4)
    ]
    for step in range(5):
        batch = collate(unbalanced, runs[0].rows_of_step(step))
        targets = batch.pop("labels")
        loss = torch.nn.CrossEntropyLoss(weight=expected)(by_hand(**batch).logits, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert [next(run).loss for run in runs] == pytest.approx([loss.item()] * 3, abs=1e-5)
    for run in runs:
        assert largest_difference(weights(run.model), weights(by_hand)) < 1e-5


def test_class_weights_that_cannot_be_are_refused(model, encoded, task):
    assert message(ftkit.TrainingRun, model, encoded["train"], config(class_weights=(1, 2, 3))) == (
        "class_weights is (1, 2, 3); expected 2 numbers, one for a class."
    )
    causal, rows = causal_batches()
    assert isinstance(causal, GPT2LMHeadModel)
    balanced = config(class_weights="balanced")
    assert message(ftkit.TrainingRun, causal, rows, balanced, task=CAUSAL) == (
        "class_weights weighs the classes of a sequence-classification; causal-lm has none. Leave "
        "it out."
    )
    assert message(config, class_weights="balancd") == (
        'class_weights is "balancd". Did you mean "balanced"?'
    )
    for wrong in ((1.0, -1.0), (0.0, 0.0), ()):
        assert message(config, class_weights=wrong).startswith(
            f"class_weights is {wrong}; expected"
        )


def test_a_label_that_is_no_class_is_refused_before_training(model, encoded):
    labels = [*encoded["train"]["labels"][:-1], 2]
    rows = encoded["train"].remove_columns("labels").add_column("labels", labels)
    assert message(ftkit.TrainingRun, model, rows, config()) == (
        "The label of 1 rows is no class, such as 2 in row 55; the model has 2, 0 to 1."
    )
