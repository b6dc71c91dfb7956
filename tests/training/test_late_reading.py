"""As on a GPU: the numbers of a step stay on the device, and are read once in a while.

There is no GPU here, so a run on the CPU is told to behave as if it were on one.
"""

import copy
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import ftkit
from ftkit.training import run as run_module
from tests.conftest import message
from tests.training.test_run import config, consume, largest_difference, weights


class Reads(TorchDispatchMode):
    """Counts what would make a CPU wait for a GPU: numbers taken out of tensors."""

    n = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.n += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def late(model, rows, **options):
    run = ftkit.TrainingRun(model, rows, config(**options))
    run.reads_late = True
    return run


@pytest.fixture
def transfers(monkeypatch):
    """How many steps were read at a time."""
    seen = []

    def read(steps):
        seen.append(len(steps))
        return ORIGINAL(steps)

    ORIGINAL = run_module.read_steps  # noqa: N806
    monkeypatch.setattr(run_module, "read_steps", read)
    return seen


@pytest.mark.parametrize("options", [{}, {"fp16": True}, {"optim": "sgd"}])
def test_the_numbers_are_read_once_an_interval(model, encoded, transfers, options):
    """Seven steps an epoch, three an interval: at 3, 6, 7, 9, 12 and 14, and never in between."""
    rows = encoded["train"].remove_columns("attention_mask")  # transformers looks at each mask
    run = late(model, rows, logging_steps=3, **options)
    if "optim" in options:
        run.optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, fused=True)
        run.seek(0)
    run.loss.weight = lambda batch: len(batch["labels"])  # labels are counted before the transfer
    with Reads() as reads:
        for _ in run:
            pass
    assert transfers == [3, 3, 1, 2, 3, 2]
    assert reads.n == 0


def test_on_a_cpu_every_step_is_read(model, encoded):
    run = ftkit.TrainingRun(model, encoded["train"], config())
    with Reads() as reads:
        next(run)
    assert reads.n >= 2
    assert run.unread == []


def test_what_is_read_late_is_the_same(model, encoded, task):
    other = copy.deepcopy(model)
    plain = list(ftkit.TrainingRun(model, encoded["train"], config()))
    steps = list(late(other, encoded["train"]))
    assert steps == plain
    assert largest_difference(weights(model), weights(other)) == 0


def test_a_step_can_be_looked_at_early(model, encoded):
    run = late(model, encoded["train"])
    step = next(run)
    assert isinstance(vars(step)["_loss"], torch.Tensor)
    assert math.isfinite(step.loss)
    assert isinstance(vars(step)["_loss"], float)
    assert len(run.unread) == 1


def bad_at(model, run, step, value):
    """Make the loss of one step no number."""

    def spoil(module, inputs, output):
        return output + value if module.training and run.step == step - 1 else output

    model.classifier.register_forward_hook(spoil)


@pytest.mark.parametrize("optim", ["adamw_torch", "sgd"])
def test_from_a_bad_loss_on_nothing_is_updated(model, encoded, optim):
    """Step 3 of 7 is bad and is read at 7: the weights, and the optimizer, are those before it."""
    other = copy.deepcopy(model)
    reference = ftkit.TrainingRun(other, encoded["train"], config(optim=optim))
    consume(reference, steps=2)
    run = late(model, encoded["train"], optim=optim)
    if optim == "sgd":
        run.optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, fused=True)
        run.seek(0)
    bad_at(model, run, 3, math.nan)
    text = message(list, run)
    assert text.startswith("The loss is nan at step 3 (rows: ")
    assert "nothing was updated" in text
    assert run.step == 2
    assert largest_difference(weights(model), weights(other)) < 1e-8
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        theirs = reference.optimizer.state[two]
        for name, value in run.optimizer.state[one].items():
            assert torch.equal(value, theirs[name]) or optim == "sgd"


def test_nothing_is_saved_before_it_is_read(model, encoded, task, tmp_path):
    run = late(model, encoded["train"], logging_steps=100)
    bad_at(model, run, 2, math.inf)
    consume(run, steps=3)
    assert message(run.state_dict).startswith("The loss is nan at step 2 ")


def test_training_reads_late_too(model, encoded, task, tmp_path, monkeypatch):
    """History, log and checkpoints are those of a CPU."""
    other, options = copy.deepcopy(model), config(save_steps=4, logging_steps=3)
    plain = ftkit.train(model, encoded, task, options, output_dir=tmp_path / "plain")
    original = ftkit.TrainingRun.__init__

    def as_on_a_gpu(self, *args, **kwargs):
        original(self, *args, **kwargs)
        self.reads_late = True

    monkeypatch.setattr(ftkit.TrainingRun, "__init__", as_on_a_gpu)
    history = ftkit.train(other, encoded, task, options, output_dir=tmp_path / "late")
    assert history == plain
    logs = [(tmp_path / name / "training.jsonl").read_text() for name in ("plain", "late")]
    assert logs[0] == logs[1]


class TestHalfPrecision:
    """float16 with a scaled loss, as on a T4; PyTorch's CPU can do it too."""

    def test_it_learns_what_float32_learns(self, model, encoded):
        other = copy.deepcopy(model)
        half = [s.loss for s in ftkit.TrainingRun(model, encoded["train"], config(fp16=True))]
        full = [s.loss for s in ftkit.TrainingRun(other, encoded["train"], config())]
        assert half == pytest.approx(full, abs=2e-2)
        assert half != full

    def test_an_overflow_skips_the_update_and_lowers_the_scale(self, model, encoded):
        run = ftkit.TrainingRun(model, encoded["train"], config(fp16=True))
        run.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**22)
        before = weights(model)
        assert not math.isfinite(next(run).grad_norm)
        assert largest_difference(before, weights(model)) == 0
        assert run.scaler.get_scale() == 2.0**21
        consume(run)
        assert largest_difference(before, weights(model)) > 0

    def test_a_bad_loss_still_stops(self, model, encoded):
        run = ftkit.TrainingRun(model, encoded["train"], config(fp16=True))
        bad_at(model, run, 2, math.nan)
        assert message(list, run).startswith("The loss is nan at step 2 ")
        assert run.step == 1

    def test_a_bad_loss_that_is_read_late_changes_nothing(self, model, encoded):
        other = copy.deepcopy(model)
        consume(ftkit.TrainingRun(other, encoded["train"], config(fp16=True)), steps=2)
        run = late(model, encoded["train"], fp16=True)
        bad_at(model, run, 3, math.nan)
        assert message(list, run).startswith("The loss is nan at step 3 ")
        assert largest_difference(weights(model), weights(other)) == 0

    def test_a_resumed_run_knows_the_scale(self, model, encoded):
        other, options = copy.deepcopy(model), config(fp16=True)
        run = ftkit.TrainingRun(model, encoded["train"], options)
        run.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**22)
        consume(run, steps=4)
        state = copy.deepcopy(run.state_dict())
        consume(run)
        again = ftkit.TrainingRun(other, encoded["train"], options)
        again.load_state_dict(*state)
        assert again.scaler.get_scale() == state[1]["scaler"]["scale"]
        consume(again)
        assert largest_difference(weights(model), weights(other)) == 0


def test_a_compiled_model_sees_few_shapes(model, encoded, monkeypatch):
    """The losses are the plain ones; rows are padded to multiples of 64."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    other, shapes, compile_ = copy.deepcopy(model), set(), torch.compile
    plain = [step.loss for step in ftkit.TrainingRun(model, encoded["train"], config())]

    def eager(module, *, dynamic):
        assert dynamic is False
        module.register_forward_pre_hook(
            lambda _, args, inputs: shapes.add(tuple(inputs["input_ids"].shape)), with_kwargs=True
        )
        return compile_(module, backend="eager", dynamic=False)

    monkeypatch.setattr(torch, "compile", eager)
    run = ftkit.TrainingRun(other, encoded["train"], config(torch_compile=True))
    assert [step.loss for step in run] == pytest.approx(plain, abs=1e-5)
    assert shapes == {(8, 64)}
    assert list(weights(other)) == list(weights(model))
    assert run.frozen is None
