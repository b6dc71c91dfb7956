"""Each check on many draws: its solution is always right, each wrong answer meets its own hint.

Opt-in, for it takes hours: ``FTKIT_CHECK_DRAWS=10000 pytest tests/checks/test_draws.py``.
"""

import os
from collections import Counter

import pytest

from tests.checks.test_cases import ALTERNATIVES, CASES

DRAWS = int(os.environ.get("FTKIT_CHECK_DRAWS", "0"))
if not DRAWS:
    pytest.skip("set FTKIT_CHECK_DRAWS to a number of draws", allow_module_level=True)
pytestmark = pytest.mark.timeout(0)


@pytest.mark.parametrize(("module", "name", "solution", "wrongs"), CASES)
def test_each_draw_discriminates(module, name, solution, wrongs):
    check = getattr(module, name)
    counts = Counter()
    for seed in range(DRAWS):
        counts["right"] += check(solution, seed=seed).status == "right"
        for wrong, hint in wrongs:
            verdict = check(wrong, seed=seed)
            counts[hint] += verdict.status == "wrong" and hint in verdict.message
    assert {key: DRAWS - n for key, n in counts.items() if n < DRAWS} == {}


@pytest.mark.parametrize(("check", "alternative"), ALTERNATIVES)
def test_another_right_answer_is_right_in_each_draw(check, alternative):
    verdicts = (check(alternative, seed=seed) for seed in range(DRAWS // 10))
    assert [verdict for verdict in verdicts if verdict.status != "right"] == []
