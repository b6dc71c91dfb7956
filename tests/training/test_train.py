"""Train to the end: which epoch is kept, what is written, and what a resumption must share."""

import copy
import json
import math
import signal
import sys
from types import SimpleNamespace

import pytest
import torch
from datasets import DatasetDict

import ftkit
from ftkit.training.checkpoints import newest_checkpoint
from tests.conftest import message
from tests.training.test_run import config, consume, largest_difference, weights

RUINOUS = {"learning_rate": 50.0, "optim": "sgd", "max_grad_norm": 100.0}


def test_the_untouched_model_competes(model, encoded, task, caplog):
    before = weights(model)
    untouched = ftkit.evaluate(model, encoded["validation"], task, n_resamples=0, bf16=False)
    options = config(metric_for_best_model="loss", **RUINOUS)
    history = ftkit.train(model, encoded, task, options)
    first = history.evaluations[0]
    assert first["loss"] == pytest.approx(float(untouched.losses.mean()))
    assert {**untouched.metrics, "epoch": 0, "loss": first["loss"]} == first
    assert history.best_epoch == 0
    assert largest_difference(before, weights(model)) == 0
    assert caplog.messages == [
        f"None of 2 epochs made the model better on the validation rows (loss {first['loss']:.4g} "
        "before training), so it is kept as it came."
    ]


def test_evaluations_say_which_epoch_they_are_of(model, encoded, task):
    history = ftkit.train(model, encoded, task, config(num_train_epochs=3))
    assert [metrics["epoch"] for metrics in history.evaluations] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("metric", "best"), [("loss", min), ("accuracy", max), ("recall", max), (None, max)]
)
def test_the_metric_for_the_best_model(model, encoded, task, metric, best):
    options = config(num_train_epochs=4, metric_for_best_model=metric, learning_rate=3e-3)
    history = ftkit.train(model, encoded, task, options)
    scores = [metrics[metric or "accuracy"] for metrics in history.evaluations]
    assert history.best_epoch == scores.index(best(scores))
    kept = ftkit.evaluate(model, encoded["validation"], task, n_resamples=0, bf16=False)
    assert float(kept.losses.mean()) == pytest.approx(
        history.evaluations[history.best_epoch]["loss"]
    )


def test_an_unknown_metric_is_refused_before_training(model, encoded, task):
    before = weights(model)
    text = message(ftkit.train, model, encoded, task, config(metric_for_best_model="acuracy"))
    assert text == 'metric_for_best_model is "acuracy". Did you mean "accuracy"?'
    assert largest_difference(before, weights(model)) == 0
    del encoded["validation"]
    text = message(ftkit.train, model, encoded, task, config(metric_for_best_model="loss"))
    assert text.startswith('metric_for_best_model is "loss", and there is no split "validation"')


def test_a_score_that_is_no_number_is_never_the_best(model, encoded, task, monkeypatch):
    scores = iter([math.nan, 0.2, math.nan, 0.1])
    real = ftkit.SequenceClassification.metrics
    monkeypatch.setattr(
        ftkit.SequenceClassification,
        "metrics",
        lambda self, sums: {**real(self, sums), "accuracy": next(scores)},
    )
    assert ftkit.train(model, encoded, task, config(num_train_epochs=3)).best_epoch == 1


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_left_as_it_came(model, encoded, task, training):
    model.train(training)
    model.bert.embeddings.eval()
    ftkit.train(model, encoded, task, config())
    assert model.training is training
    assert not model.bert.embeddings.training
    assert model.classifier.training is training


def test_a_checkpoint_after_each_epoch(model, encoded, task, tmp_path):
    options = config(num_train_epochs=4, save_strategy="epoch")
    ftkit.train(model, encoded, task, options, output_dir=tmp_path)
    saved = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert saved == ["step-00000014", "step-00000021"]  # of 7, 14 and 21 the newest two
    _, _, state = newest_checkpoint(tmp_path / "checkpoints")
    assert [metrics["epoch"] for metrics in state["history"]["evaluations"]] == [0, 1, 2, 3]


def test_strategies_that_contradict_themselves():
    assert message(config, save_strategy="steps").startswith('save_strategy is "steps" and save_st')
    assert message(config, save_strategy="epoch", save_steps=5).endswith("expected one of the two.")
    assert message(config, save_strategy="epochs").endswith('Did you mean "epoch"?')
    assert message(config, bf16=True, fp16=True).startswith("bf16 and fp16 are both True")
    assert config(save_steps=5, save_strategy="steps").save_steps == 5


def stopped(model, encoded, task, options, folder, *, at):
    """Train until SIGTERM comes in a step; return the model."""
    seen = []

    def count(module, _):
        seen.extend([1] * module.training)
        if len(seen) == at:
            signal.raise_signal(signal.SIGTERM)

    hook = model.register_forward_pre_hook(count)
    with pytest.raises(ftkit.StoppedError):
        ftkit.train(model, encoded, task, options, output_dir=folder)
    hook.remove()


def flipped(split):
    return split.map(lambda row: {"labels": 1 - row["labels"]})


def other_ids(split):
    return split.map(lambda row: {"input_ids": [*row["input_ids"][:-1], 7]})


def test_a_resumption_knows_its_rows_and_its_model(model, encoded, task, tmp_path):
    """Labels flipped, ids changed, in training or validation; another body under the same head."""
    ftkit.set_trainable(model, "head")
    fresh, options = copy.deepcopy(model), config(save_steps=2)
    stopped(model, encoded, task, options, tmp_path, at=3)

    def resume(model, **splits):
        changed = DatasetDict({**encoded, **splits})
        return ftkit.train(model, changed, task, options, output_dir=tmp_path, resume=True)

    with torch.no_grad():
        other = copy.deepcopy(fresh)
        other.bert.encoder.layer[0].output.dense.weight += 0.01
    rows, few = encoded["train"], encoded["validation"]
    for wrong, splits, what in (
        (fresh, {"train": flipped(rows)}, 'column "labels" of the training rows'),
        (fresh, {"train": other_ids(rows)}, 'column "input_ids" of the training rows'),
        (fresh, {"validation": flipped(few)}, 'column "labels" of the validation rows'),
        (fresh, {"validation": other_ids(few)}, 'column "input_ids" of the validation rows'),
        (other, {}, "the frozen weights"),
    ):
        text = message(resume, copy.deepcopy(wrong), **splits)
        assert text.startswith(f"The checkpoint is of another run: {what} is "), text
        assert len(text.splitlines()) == 1
    assert len(resume(fresh).steps) == 14


def test_what_may_change_between_two_halves(model, encoded, task, tmp_path):
    fresh = copy.deepcopy(model)
    stopped(model, encoded, task, config(save_steps=2), tmp_path, at=3)
    options = config(save_strategy="epoch", logging_steps=3, gradient_accumulation_steps=2)
    history = ftkit.train(fresh, encoded, task, options, output_dir=tmp_path, resume=True)
    assert len(history.steps) == 14


def test_every_step_stands_in_the_log_once(model, encoded, task, tmp_path):
    """Saved at 8, stopped at 9 after a crash left 10 and half a line in the file; then resumed."""
    fresh, options = copy.deepcopy(model), config(save_steps=2)
    stopped(model, encoded, task, options, tmp_path, at=9)
    path = tmp_path / "training.jsonl"
    assert len(path.read_text().splitlines()) == 9 + 2
    with path.open("a") as file:
        file.write('{"step": 10, "epoch": 1.4, "loss": 1.0}\n{"step": 11, "ep')
    history = ftkit.train(fresh, encoded, task, options, output_dir=tmp_path, resume=True)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert steps == [step_line(step) for step in history.steps]
    evaluations = [line for line in lines if "eval_loss" in line]
    assert [(line["step"], line["epoch"]) for line in evaluations] == [(0, 0), (7, 1), (14, 2)]
    assert evaluations[2]["eval_accuracy"] == history.evaluations[2]["accuracy"]
    assert [line["step"] for line in lines] == [0, *range(1, 8), 7, *range(8, 15), 14]


def step_line(step):
    return {name: getattr(step, name) for name in ftkit.Step.__match_args__}


def test_tensorboard(model, encoded, task, tmp_path, monkeypatch):
    written = []

    class SummaryWriter:
        def __init__(self, log_dir):
            self.log_dir = log_dir

        def add_scalar(self, name, value, step):
            written.append((self.log_dir, name, step, value))

        def close(self):
            written.append("closed")

    fake = SimpleNamespace(SummaryWriter=SummaryWriter)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    options = config(report_to="tensorboard")
    history = ftkit.train(model, encoded, task, options, output_dir=tmp_path / "mine")
    where = str(tmp_path / "runs" / "mine")
    assert (where, "train/loss", 3, history.steps[2].loss) in written
    assert (where, "eval/accuracy", 7, history.evaluations[1]["accuracy"]) in written
    assert written[-1] == "closed"
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert message(ftkit.train, model, encoded, task, options) == (
        'report_to is "tensorboard", which is not installed: pip install tensorboard, or leave it '
        "out."
    )


def test_a_parameter_without_a_gradient_is_named(model, encoded):
    model.register_parameter("idle", torch.nn.Parameter(torch.zeros(2)))
    run = ftkit.TrainingRun(model, encoded["train"], config())
    with pytest.warns(ftkit.TrainingWarning) as caught:
        consume(run, steps=2)
    assert [str(warning.message) for warning in caught] == [
        "1 trainable parameters got no gradient from the first batch, so they do not learn: idle. "
        "Freeze them, or look whether the model uses them."
    ]


def test_a_loss_that_is_constant_is_told(model, encoded):
    model.classifier.register_forward_hook(lambda *args: args[-1] * 0.0)
    with pytest.warns(ftkit.TrainingWarning, match=r"^The gradient of step 1 is 0: the loss, 0.69"):
        next(ftkit.TrainingRun(model, encoded["train"], config()))
