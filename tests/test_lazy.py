"""Names are handed on lazily: a light start, and all names and docstrings are there."""

import subprocess
import sys
import types

import pytest

import ftkit
from ftkit.cli.main import COMMANDS
from ftkit.tasks import TASKS
from ftkit.tasks.names import TASK_NAMES

HEAVY = ("torch", "transformers", "datasets", "scipy", "peft", "sklearn", "matplotlib", "nbformat")
CALLS = {
    "import ftkit": "import ftkit",
    "its names": "import ftkit; dir(ftkit), dir(ftkit.data), ftkit.__version__",
    **{
        f"{command} --help": f"""if True:
            from ftkit.cli.main import main
            try:
                main({[*command.split(), "--help"]})
            except SystemExit as end:
                assert end.code == 0
        """
        for command in ("", *COMMANDS)
    },
}


@pytest.mark.parametrize("code", CALLS.values(), ids=CALLS)
def test_a_light_call_loads_nothing_heavy(code):
    check = f"import sys; print([name for name in {HEAVY} if name in sys.modules])"
    call = [sys.executable, "-c", f"{code}\n{check}"]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_every_public_name_is_there_with_its_docstring():
    assert set(ftkit.__all__) <= set(dir(ftkit))
    for name in ftkit.__all__:
        assert getattr(ftkit, name).__doc__, name


@pytest.mark.parametrize("room", ["data", "evaluation", "metrics", "models", "tasks", "training"])
def test_every_room_hands_on_what_its_stub_says(room):
    module = getattr(ftkit, room)
    assert isinstance(module, types.ModuleType)
    for name in module.__all__:
        assert getattr(module, name) is not None, name


def test_the_names_of_tasks_are_those_of_their_classes():
    assert sorted(TASKS) == list(TASK_NAMES)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="lode_pretrained"):
        ftkit.lode_pretrained  # noqa: B018
