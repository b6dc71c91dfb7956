"""On a CUDA device: the same loop, the same losses, and the frozen layers' outputs reused."""

import copy

import pytest
import torch

import ftkit

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
SETTINGS = {"learning_rate": 1e-3, "num_train_epochs": 2, "batch_size": 8, "bf16": False}


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


@pytest.mark.parametrize("tune", ["full", "head"])
def test_the_same_losses_as_on_the_cpu(model, encoded, monkeypatch, tune):
    ftkit.set_trainable(without_dropout(model), tune)
    other = copy.deepcopy(model)
    config = ftkit.TrainingConfig(**SETTINGS)
    on_gpu = [step.loss for step in ftkit.TrainingRun(model, encoded["train"], config)]
    assert next(model.parameters()).is_cuda
    monkeypatch.setattr("ftkit.training.run.best_device", lambda: torch.device("cpu"))
    on_cpu = [step.loss for step in ftkit.TrainingRun(other, encoded["train"], config)]
    assert on_gpu == pytest.approx(on_cpu, abs=1e-4)


def test_bf16_trains(model, encoded, task):
    config = ftkit.TrainingConfig(**{**SETTINGS, "bf16": True, "num_train_epochs": 20})
    ftkit.train(model, encoded, task, config)
    report = ftkit.evaluate(model, encoded["train"], task, n_resamples=0)
    assert report.metrics["accuracy"] > 0.9


def test_a_run_goes_on_from_its_state(model, encoded):
    config = ftkit.TrainingConfig(**SETTINGS)
    other = copy.deepcopy(model)
    run = ftkit.TrainingRun(model, encoded["train"], config)
    for _ in range(3):
        next(run)
    state = copy.deepcopy(run.state_dict())
    losses = [step.loss for step in run]
    resumed = ftkit.TrainingRun(other, encoded["train"], config)
    resumed.load_state_dict(*state)
    assert [step.loss for step in resumed] == pytest.approx(losses, abs=1e-5)
