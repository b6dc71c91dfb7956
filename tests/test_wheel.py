"""The built wheel carries data and notebooks, and works outside the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_what_the_checkout_holds(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, inside in (("data", ""), ("notebooks", "notebooks/")):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and not {"__pycache__", ".ipynb_checkpoints"} & set(path.parts):
                assert f"ftkit/bundled/{inside}{path.relative_to(ROOT / folder)}" in names
    assert "ftkit/ftkit.mplstyle" in names
    assert not any(name.startswith(("tests/", "data/")) for name in names)


@pytest.mark.slow
def test_the_installed_wheel_works_elsewhere(wheel, tmp_path, checkpoint):
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, "--target", str(site), str(wheel)], check=True)
    code = """if True:
        import runpy, ftkit
        print(ftkit.__file__, len(ftkit.cli.find_notebooks([])))
        runpy.run_module("ftkit", run_name="__main__")  # as python -m ftkit does
    """
    options = ["--num-train-epochs", "1", "--tune", "head", "--output", "out"]
    options += ["--checkpoint", str(checkpoint), "--data", "paraphrase"]
    done = subprocess.run(
        [sys.executable, "-c", code, "train", *options],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    first, *_, last = done.stdout.splitlines()
    where, notebooks = first.split()
    assert Path(where).is_relative_to(site)
    assert int(notebooks) == len(list((ROOT / "notebooks").glob("[0-9]*.ipynb")))
    assert last == "saved in out"
