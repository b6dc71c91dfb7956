"""Every check passes its solution and meets each planted wrong answer with its own hint."""

import inspect
import pkgutil
from importlib import import_module

import pytest

import ftkit.checks
from tests.checks import cases

TOPICS = [module.name for module in pkgutil.iter_modules(ftkit.checks.__path__)]
CASES = [
    (import_module(f"ftkit.checks.{topic}"), name, *case)
    for topic in TOPICS
    for name, case in import_module(f"{cases.__name__}.{topic}").CASES.items()
]
SOLUTIONS = [(getattr(module, name), solution) for module, name, solution, _ in CASES]
WRONG = [
    (getattr(module, name), wrong, hint)
    for module, name, _, wrongs in CASES
    for wrong, hint in wrongs
]
TRIES = 3  # the checks draw new inputs each time


def test_every_check_has_cases():
    for topic in TOPICS:
        module = import_module(f"ftkit.checks.{topic}")
        public = {
            name
            for name, value in inspect.getmembers(module, inspect.isfunction)
            if not name.startswith("_") and hasattr(value, "__wrapped__")
        }
        assert public == {name for other, name, *_ in CASES if other is module}
    assert len(CASES) >= 30


@pytest.mark.parametrize(("check", "solution"), SOLUTIONS)
def test_solution_is_right(check, solution):
    for _ in range(TRIES):
        verdict = check(solution)
        assert verdict.status == "right", verdict


def test_clearing_the_gradients_last_is_right_too():
    step = cases.full_fine_tuning.make_step(zero="last")
    assert ftkit.checks.full_fine_tuning.training_step(step).status == "right"


def test_labelled_padding_is_found_at_the_last_real_token_too():
    wrong = cases.pretraining_and_transfer.own_padding_only
    message = ftkit.checks.pretraining_and_transfer.causal_labels(wrong).message
    assert "padding is labelled" in message


@pytest.mark.parametrize("blank", [..., None, lambda *_, **__: ...])
@pytest.mark.parametrize(("check", "solution"), SOLUTIONS)
def test_blank_is_not_answered(check, solution, blank):
    assert check(blank).status == "not answered yet"


@pytest.mark.parametrize(("check", "wrong", "hint"), WRONG)
def test_wrong_answer_meets_its_hint(check, wrong, hint):
    for _ in range(TRIES):
        verdict = check(wrong)
        assert verdict.status == "wrong"
        assert hint in verdict.message


@pytest.mark.parametrize(("module", "name", "solution", "wrongs"), CASES)
def test_misconceptions_meet_different_hints(module, name, solution, wrongs):
    messages = {hint: getattr(module, name)(wrong).message for wrong, hint in wrongs}
    assert len(messages) >= 2
    for hint, message in messages.items():
        assert [other for other in messages if other in message] == [hint]
