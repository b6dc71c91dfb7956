"""``ftkit export``: what it prints, and what it refuses with status 2."""

import pytest

from ftkit.cli.main import main
from tests.export.conftest import bpe, save  # noqa: F401  # fixtures


@pytest.fixture
def run(capsys):
    """Run a command and return its status, its output and its error output."""

    def call(*args) -> tuple[int, str, str]:
        status = main([str(arg) for arg in args])
        out, err = capsys.readouterr()
        return status, out, err.splitlines()[-1] if err else ""

    return call


def test_the_numbers_are_printed(run, save, tmp_path):  # noqa: F811
    (tmp_path / "texts.txt").write_text("the soup was fine\n\nthe song was dull today\n")
    status, out, _ = run(
        *("export", save(), "--to", "gguf", "--type", "f16", "--output", tmp_path / "m.gguf"),
        *("--texts", tmp_path / "texts.txt"),
    )
    first, *_, error, last = out.splitlines()
    assert status == 0
    assert first.startswith("2 texts, ")
    assert "read by transformers" in first
    assert error.startswith("largest error of a matrix      0.0")
    assert last == f"saved in {tmp_path / 'm.gguf'}"


def test_what_cannot_be_exported_ends_in_one_line(run, save, tmp_path):  # noqa: F811
    call = ("export", tmp_path / "no", "--to", "gguf", "--output", tmp_path / "m.gguf")
    status, out, err = run(*call)
    assert (status, out) == (2, "")
    assert "is no bundled model, no folder and no hub id" in err
    (tmp_path / "empty.txt").write_text("\n \n")
    for name, told in (("gone.txt", "could not be read"), ("empty.txt", "holds no text")):
        status, _, err = run(*call, "--texts", tmp_path / name)
        assert status == 2
        assert told in err
    with pytest.raises(SystemExit):
        main(["export", "model", "--to", "pickle", "--output", "x"])
