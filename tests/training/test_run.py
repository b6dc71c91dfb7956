"""The loop: its mathematics, its order, what it keeps and what it refuses."""

import copy
import math
import random
import signal
from functools import partial

import pytest
import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2LMHeadModel, get_linear_schedule_with_warmup

import ftkit
from ftkit.data.batches import collate, step_seed

CPU_FULL = (
    "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory"
)


def config(**options) -> ftkit.TrainingConfig:
    return ftkit.TrainingConfig(
        **{"learning_rate": 1e-3, "num_train_epochs": 2, "batch_size": 8, "bf16": False, **options}
    )


def weights(model) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def largest_difference(one, other) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def consume(run, steps=None):
    for step in run:
        if step.step == steps:
            break
    return run


REFERENCES = {
    "adamw_torch": partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.0, fused=True),
    "rmsprop": partial(torch.optim.RMSprop, lr=1e-3),
    "sgd": partial(torch.optim.SGD, lr=1e-3),
}


@pytest.mark.parametrize("optim", REFERENCES)
def test_equal_to_a_loop_written_by_hand(model, encoded, optim):
    """Dropout, clipping, warm-up and linear decay on; no line is shared with ftkit's loop."""
    by_hand = copy.deepcopy(model)
    options = config(num_train_epochs=3, warmup_steps=4, max_grad_norm=0.5, optim=optim)
    run = ftkit.TrainingRun(model, encoded["train"], options)
    optimizer = REFERENCES[optim](by_hand.parameters())
    lr_scheduler = get_linear_schedule_with_warmup(optimizer, 4, 21)
    losses = []
    for step in range(20):
        batch = collate(encoded["train"], run.rows_of_step(step))
        labels = batch.pop("labels")
        by_hand.train()
        torch.manual_seed(step_seed(options.seed, step))
        loss = cross_entropy(by_hand(**batch).logits, labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(by_hand.parameters(), 0.5)
        optimizer.step()
        lr_scheduler.step()
        losses.append(loss.item())
    ours = [next(run).loss for _ in range(20)]
    assert ours == pytest.approx(losses, abs=1e-6)
    assert largest_difference(weights(model), weights(by_hand)) < 1e-6


def test_accumulation_changes_nothing(model, encoded):
    """With dropout off: one batch of 8, two of 4 and four of 2 give the same weights."""
    finals = []
    for parts in (1, 2, 4):
        trained = without_dropout(copy.deepcopy(model))
        options = config(gradient_accumulation_steps=parts, optim="sgd", learning_rate=0.1)
        consume(ftkit.TrainingRun(trained, encoded["train"], options))
        finals.append(weights(trained))
    assert largest_difference(finals[0], weights(model)) > 1e-3
    assert largest_difference(finals[0], finals[1]) < 1e-6
    assert largest_difference(finals[0], finals[2]) < 1e-6


def test_evaluating_in_between_changes_nothing(model, encoded, task):
    other = copy.deepcopy(model)
    consume(ftkit.TrainingRun(model, encoded["train"], config()))
    for _ in ftkit.TrainingRun(other, encoded["train"], config()):
        ftkit.evaluate(other, encoded["validation"], task, n_resamples=0)
        torch.rand(3)
    assert largest_difference(weights(model), weights(other)) == 0


def test_the_global_generator_is_left_alone(model, encoded):
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    consume(ftkit.TrainingRun(model, encoded["train"], config()))
    assert torch.equal(torch.rand(3), expected)


def test_break_and_go_on(model, encoded):
    other = copy.deepcopy(model)
    consume(ftkit.TrainingRun(model, encoded["train"], config()))
    run = ftkit.TrainingRun(other, encoded["train"], config())
    consume(run, steps=5)
    assert next(run).step == 6
    consume(run)
    assert list(run) == []
    assert largest_difference(weights(model), weights(other)) == 0


def test_an_exception_in_the_loop_body_loses_nothing(model, encoded):
    other = copy.deepcopy(model)
    consume(ftkit.TrainingRun(model, encoded["train"], config()))
    run = ftkit.TrainingRun(other, encoded["train"], config())

    def stumble():
        for step in run:
            if step.step == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stumble()
    consume(run)
    assert largest_difference(weights(model), weights(other)) == 0


def test_every_epoch_sees_every_row_once(model, encoded):
    run = ftkit.TrainingRun(model, encoded["train"], config())
    assert (run.steps_per_epoch, run.total_steps) == (7, 14)
    for epoch in range(2):
        rows = [run.rows_of_step(step) for step in range(7 * epoch, 7 * epoch + 7)]
        assert sorted(sum(rows, [])) == list(range(56))


def test_steps_tell_what_happened(model, encoded):
    steps = list(ftkit.TrainingRun(model, encoded["train"], config(warmup_steps=0.5)))
    assert [step.step for step in steps] == list(range(1, 15))
    assert steps[6].epoch == 1.0
    rates = [step.learning_rate for step in steps]
    assert rates[0] == 0
    assert max(rates) == rates[7] == pytest.approx(1e-3)
    assert all(step.grad_norm > 0 and math.isfinite(step.loss) for step in steps)


@pytest.mark.parametrize("name", ["constant", "cosine"])
def test_schedules(model, encoded, name):
    rates = [
        step.learning_rate
        for step in ftkit.TrainingRun(model, encoded["train"], config(lr_scheduler_type=name))
    ]
    shape = {"constant": lambda t: 1, "cosine": lambda t: (1 + math.cos(math.pi * t / 14)) / 2}
    assert rates == pytest.approx([1e-3 * shape[name](t) for t in range(14)])


@pytest.mark.parametrize("optim", ["adamw_torch", "rmsprop"])  # plain SGD needs far more steps
def test_adaptive_optimizers_learn_within_twenty_epochs(model, encoded, optim):
    options = config(optim=optim, learning_rate=1e-3, num_train_epochs=20)
    losses = [step.loss for step in ftkit.TrainingRun(model, encoded["train"], options)]
    assert sum(losses[-7:]) < 0.7 * sum(losses[:7])


def test_frozen_parameters_do_not_move(model, encoded):
    before = weights(model)
    ftkit.set_trainable(model, "head")
    consume(ftkit.TrainingRun(model, encoded["train"], config(weight_decay=0.1)))
    after = weights(model)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"classifier.weight", "classifier.bias"}


def test_gradual_unfreezing(model, encoded):
    before = weights(model)
    options = config(unfreeze=((0.0, "head"), (0.5, "top:1")))
    run = ftkit.TrainingRun(model, encoded["train"], options)
    consume(run, steps=7)
    halfway = weights(model)
    consume(run)
    after = weights(model)

    def moved(one, other):
        return {n.split(".layer.")[-1][:1] for n in one if not torch.equal(one[n], other[n])}

    assert moved(before, halfway) == {"c"}
    assert moved(halfway, after) == {"c", "b", "1"}  # classifier, bert.pooler, layer 1


def test_the_best_epoch_is_kept_whole_when_more_thaws_later(model, encoded, task):
    rates = {"learning_rate": 9.0, "head_learning_rate": 0.2, "optim": "sgd"}  # the body is ruined
    stages = ((0.0, "head"), (0.5, "full"))
    options = config(unfreeze=stages, metric_for_best_model="loss", **rates)
    before = weights(model)
    history = ftkit.train(model, encoded, task, options)
    kept = ftkit.evaluate(model, encoded["validation"], task, n_resamples=0, bf16=False)
    best = history.evaluations[history.best_epoch]
    assert float(kept.losses.mean()) == pytest.approx(best["loss"])
    assert history.best_epoch == 1
    name = "bert.encoder.layer.0.output.dense.weight"
    assert torch.equal(before[name], weights(model)[name])


def test_training_keeps_the_best_epoch(model, encoded, task):
    history = ftkit.train(model, encoded, task, config(num_train_epochs=5))
    assert [metrics["epoch"] for metrics in history.evaluations] == [0, 1, 2, 3, 4, 5]
    scores = [metrics["accuracy"] for metrics in history.evaluations]
    assert history.best_epoch == scores.index(max(scores))
    kept = ftkit.evaluate(model, encoded["validation"], task, n_resamples=0, bf16=False)
    assert kept.metrics["accuracy"] == max(scores)
    assert float(kept.losses.mean()) == pytest.approx(
        history.evaluations[history.best_epoch]["loss"]
    )


def test_without_validation_the_last_weights_stay(model, encoded, task):
    del encoded["validation"]
    history = ftkit.train(model, encoded, task, config())
    assert (history.evaluations, history.best_epoch, len(history.steps)) == ([], None, 14)


def test_lora_trains_and_learns(model, encoded, task):
    adapted = ftkit.add_lora(model, r=4)
    ftkit.train(adapted, encoded, task, config(num_train_epochs=20, learning_rate=1e-2))
    report = ftkit.evaluate(ftkit.merge_lora(adapted), encoded["train"], task, n_resamples=0)
    assert report.metrics["accuracy"] > 0.9


def language_model_and_rows(labelled: list[bool]):
    model = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_positions=4, n_embd=8, n_layer=1, n_head=2))
    labels = [[1, 2, 3] if has else [-100] * 3 for has in labelled]
    return model, Dataset.from_dict({"input_ids": [[1, 2, 3]] * len(labels), "labels": labels})


def test_rows_without_labels_change_nothing():
    """Micro-batches of one row: the mean over no label is 0/0, and must not reach the others."""
    torch.manual_seed(0)
    model, mixed = language_model_and_rows([True, False, True, False])
    _, plain = language_model_and_rows([True, True])
    twin = without_dropout(copy.deepcopy(model))
    model = without_dropout(model)
    options = {"num_train_epochs": 1, "max_grad_norm": 0.5, "optim": "sgd"}
    (one,) = ftkit.TrainingRun(model, mixed, config(gradient_accumulation_steps=4, **options))
    (other,) = ftkit.TrainingRun(twin, plain, config(**options))
    assert one.loss == pytest.approx(other.loss, abs=1e-6)
    assert largest_difference(weights(model), weights(twin)) < 1e-6


def test_a_batch_without_any_label_is_refused():
    model, rows = language_model_and_rows([False, False])
    with pytest.raises(ftkit.FtkitError, match="^The loss is nan at step 1 .* have labels, try"):
        next(ftkit.TrainingRun(model, rows, config()))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_the_update(model, encoded, value):
    run = ftkit.TrainingRun(model, encoded["train"], config())
    consume(run, steps=3)
    with torch.no_grad():
        model.classifier.weight[0, 0] = value
    before = weights(model)
    with pytest.raises(ftkit.FtkitError) as caught:
        next(run)
    rows = [encoded["train"][i]["row"] for i in run.rows_of_step(3)]
    assert str(caught.value) in [
        f"The loss is {loss} at step 4 (rows: {', '.join(rows[:4])}, …); nothing was updated. If "
        "these rows have labels, try a lower learning rate, or bf16=False."
        for loss in ("nan", "inf")
    ]
    after = weights(model)
    assert all(torch.equal(before[n], after[n]) for n in before if n != "classifier.weight")


def test_a_gradient_that_is_not_finite_stops_before_the_update(model, encoded):
    run = ftkit.TrainingRun(model, encoded["train"], config())
    consume(run, steps=2)
    before = weights(model)
    model.classifier.weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(ftkit.FtkitError, match="^The gradient's length is (nan|inf) at step 3 "):
        next(run)
    assert largest_difference(before, weights(model)) == 0
    assert run.step == 2


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError(), RuntimeError(CPU_FULL)]
)
def test_out_of_memory_halves_the_micro_batch(model, encoded, error):
    """More than four rows do not fit from step 7 on; the weights are those of a larger machine."""
    other = copy.deepcopy(without_dropout(model))
    options = config(optim="sgd", learning_rate=0.1)
    consume(ftkit.TrainingRun(other, encoded["train"], options))
    run = ftkit.TrainingRun(model, encoded["train"], options)

    def small_memory(_, __, batch):
        if run.step == 6 and len(batch["input_ids"]) > 4:
            raise error

    model.register_forward_pre_hook(small_memory, with_kwargs=True)
    with pytest.warns(UserWarning, match="^Out of memory") as caught:
        consume(run)
    assert str(caught[0].message) == (
        "Out of memory at step 7: 8 rows at a time are too many. The step begins again, and all "
        "others too go on, with micro-batches of half the size: --gradient-accumulation-steps 2."
    )
    assert len(caught) == 1
    assert largest_difference(weights(model), weights(other)) < 1e-6


def test_not_even_one_row_fits(model, encoded):
    def no_memory(*_):
        raise MemoryError("too small")

    model.register_forward_pre_hook(no_memory)
    run = ftkit.TrainingRun(model, encoded["train"], config())
    with pytest.warns(UserWarning, match="at step 1: . rows"), pytest.raises(MemoryError):
        next(run)


def test_ctrl_c_in_the_middle_of_a_step(model, encoded):
    """In the forward pass the step is not done; in the update it is done. Nothing is in between."""
    other = copy.deepcopy(model)
    consume(ftkit.TrainingRun(model, encoded["train"], config()))
    run = ftkit.TrainingRun(other, encoded["train"], config())
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt(*_):
        signal.raise_signal(signal.SIGINT)

    consume(run, steps=3)
    for hooked, step in ((other, 3), (run.optimizer, 4)):
        hook = (
            other.classifier.register_forward_pre_hook(interrupt)
            if hooked is other
            else run.optimizer.register_step_pre_hook(interrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            next(run)
        hook.remove()
        assert run.step == step
    consume(run)
    assert largest_difference(weights(model), weights(other)) == 0


def causal_batches():
    """A random GPT-2 and 24 ragged rows, their first labels ignored in some."""
    torch.manual_seed(0)
    options = {"vocab_size": 50, "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 4}
    model = GPT2LMHeadModel(GPT2Config(**options, bos_token_id=0, eos_token_id=0))
    rng = random.Random(0)
    rows = [[rng.randrange(1, 50) for _ in range(rng.randint(2, 30))] for _ in range(24)]
    labels = [[-100] * (len(row) // 3) + row[len(row) // 3 :] for row in rows]
    return without_dropout(model), Dataset.from_dict({"input_ids": rows, "labels": labels})


def test_accumulation_changes_nothing_on_ragged_causal_batches():
    model, dataset = causal_batches()
    dataset = dataset.add_column("attention_mask", [[1] * len(r) for r in dataset["input_ids"]])
    finals = []
    for parts in (1, 2, 4, 8):
        trained = copy.deepcopy(model)
        options = config(gradient_accumulation_steps=parts, optim="sgd", learning_rate=0.1)
        run = ftkit.TrainingRun(trained, dataset, options)
        losses = [step.loss for step in run]
        finals.append((weights(trained), losses))
    assert largest_difference(finals[0][0], weights(model)) > 1e-3
    for final, losses in finals[1:]:
        assert losses == pytest.approx(finals[0][1], abs=1e-5)
        assert largest_difference(finals[0][0], final) < 1e-6


def test_bad_values_are_told_all_at_once():
    with pytest.raises(ftkit.FtkitError) as caught:
        ftkit.TrainingConfig(learning_rate=-1, batch_size=0, optim="adam", warmup_steps=-2)
    assert str(caught.value).splitlines() == [
        "learning_rate is -1; expected a number above 0.",
        "batch_size is 0; expected a whole number above 0.",
        'optim is "adam". Expected one of: adamw_torch, rmsprop, sgd.',
        "warmup_steps is -2; expected 0 or more.",
    ]


def test_bad_data_is_refused_at_once(model, encoded, splits):
    with pytest.raises(
        ftkit.FtkitError, match="^A DatasetDict came; expected one split, such as enc"
    ):
        ftkit.TrainingRun(model, encoded)
    with pytest.raises(
        ftkit.FtkitError, match="has no column input_ids and no labels; its columns"
    ):
        ftkit.TrainingRun(model, splits["train"])
    with pytest.raises(ftkit.FtkitError, match="^The training split has no rows.$"):
        ftkit.TrainingRun(model, encoded["train"].select([]))


def test_nothing_to_train_is_refused(model, encoded):
    model.requires_grad_(False)
    with pytest.raises(ftkit.FtkitError, match="^No parameter is trainable. Call ftkit.set_train"):
        ftkit.TrainingRun(model, encoded["train"])
