"""An estimate before the run: what it promises, and that it changes nothing."""

import copy
import os
import sys
from pathlib import Path

import pytest
import torch

import ftkit
from ftkit.data.batches import epoch_order, row_lengths
from ftkit.training.estimation import _padded
from tests.benchmarks import estimate

CONFIG = ftkit.TrainingConfig(num_train_epochs=3, batch_size=8, bf16=False, learning_rate=1e-2)


def test_the_model_stays_as_it_is(model, encoded, task):
    ftkit.set_trainable(model, "top:1")
    other = copy.deepcopy(model)
    state = torch.random.get_rng_state()
    ftkit.estimate(model, encoded, task, CONFIG)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
        assert one.requires_grad == two.requires_grad
        assert one.grad is None
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not model.training


def test_steps_and_tokens_are_those_of_the_run(model, encoded, task):
    lengths = row_lengths(encoded["train"])
    found = ftkit.estimate(model, encoded, task, CONFIG)
    assert found.steps == 21
    order = epoch_order(lengths, 8, CONFIG.seed, 0)
    assert found.tokens == 3 * _padded(order, lengths)
    assert str(found).startswith("21 steps: 0.0 minutes, ")


@pytest.mark.parametrize("tune", ["head", "full"])
def test_every_kind_of_run_can_be_tried(model, encoded, task, tune):
    ftkit.set_trainable(model, tune)
    del encoded["validation"]
    assert ftkit.estimate(model, encoded, task, CONFIG).seconds > 0
    thawing = ftkit.TrainingConfig(unfreeze=((0.0, "head"), (0.5, "full")), bf16=False)
    assert ftkit.estimate(model, encoded, task, thawing).steps == 6


def run_benchmark(printed: Path, *options: str) -> int:
    """Run the benchmark as its command does; what it prints goes to a file."""
    sys.argv[1:] = options
    with printed.open("w", encoding="utf-8") as sys.stdout:
        estimate.main()
    return 0


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="forkserver is POSIX")
def test_close_to_what_then_happens(tmp_path):
    """In a process of its own: within a factor here, where other work may slow one of the two.

    ``python -m tests.benchmarks.estimate`` measures how close it is on a quiet machine.
    """
    from tests import faults  # POSIX only

    printed = tmp_path / "printed"
    process = faults.start(run_benchmark, printed, "--rows", "96", "--epochs", "2")
    process.join()
    assert process.exitcode == 0
    found = dict(line.split(": ") for line in printed.read_text().splitlines()[-2:])
    assert 1 / 3 < float(found["time"]) < 3
    assert 3 / 4 < float(found["memory"]) < 4 / 3
