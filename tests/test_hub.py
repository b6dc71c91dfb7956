"""The way to the hub and back, with the real client and a hub of our own on 127.0.0.1."""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import get_session, hf_hub_download
from safetensors.torch import load_file
from transformers import BertForMaskedLM

import ftkit
from tests.conftest import tiny_config
from tests.hub_server import Hub

PATIENCE = 3  # seconds that the client waits for an answer: HF_HUB_ETAG_TIMEOUT
BODY = "bert.encoder.layer.0.output.dense.weight"
ENDING = "Connect to the network, or use a bundled name or a local path."

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="commands are forks")
Run = Callable[..., tuple[int, list[str]]]


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    """One hub for all tests; each adds repositories of its own."""
    hub = Hub()
    yield hub
    hub.close()


@pytest.fixture
def hub(server: Hub) -> Iterator[Hub]:
    """The hub, whole and listening, with no request so far."""
    server.requests.clear()
    yield server
    server.release()
    server.close()
    server.open()


def start(hub: Hub, home: Path, **options: str) -> subprocess.Popen:
    """Start the process whose forks are the commands, with an environment of its own."""
    kept = {k: v for k, v in os.environ.items() if not re.search("^HF_|_proxy$", k, re.IGNORECASE)}
    quiet = ("TQDM_DISABLE", "HF_DATASETS_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_PROGRESS_BARS")
    quiet += ("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_UPDATE_CHECK")
    options |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), "OMP_NUM_THREADS": "1"}
    options |= {"HF_HUB_ETAG_TIMEOUT": str(PATIENCE), "HF_HUB_DOWNLOAD_TIMEOUT": str(PATIENCE)}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.hub_server"],
        env={**kept, **dict.fromkeys(quiet, "1"), **options},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parent.parent,
        text=True,
    )


def runner(process: subprocess.Popen, folder: Path) -> Run:
    """Return what runs one command there and returns its status and all that it printed."""

    def run(*args: object) -> tuple[int, list[str]]:
        line = [[str(arg) for arg in args], str(folder / "printed.txt"), 300]
        process.stdin.write(json.dumps(line) + "\n")
        process.stdin.flush()
        status = int(process.stdout.readline())
        return status, (folder / "printed.txt").read_text(encoding="utf-8").splitlines()

    return run


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the cache."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def run(server: Hub, home: Path) -> Iterator[Run]:
    """Run a command in a process of its own, which asks the hub."""
    with start(server, home) as process:
        yield runner(process, home)
        process.stdin.close()


@pytest.fixture(scope="module")
def run_offline(server: Hub, home: Path) -> Iterator[Run]:
    """Run a command in a process of its own, with the same cache and HF_HUB_OFFLINE."""
    with start(server, home, HF_HUB_OFFLINE="1") as process:
        yield runner(process, home)
        process.stdin.close()


@pytest.fixture
def train(tmp_path: Path, folder: Path, checkpoint: Path) -> list[object]:
    """The arguments of a training that leaves the body as it is; of an option the last counts."""
    return [
        *("train", "--checkpoint", checkpoint, "--data", folder, "--output", tmp_path / "out"),
        *("--overwrite", "--num-train-epochs", 1, "--tune", "head", "--bf16", "false"),
    ]


@pytest.fixture(scope="session")
def newer(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same checkpoint with other weights, in parts, and with a card."""
    path = shutil.copytree(checkpoint, tmp_path_factory.mktemp("newer") / "tiny-bert")
    (path / "model.safetensors").unlink()
    torch.manual_seed(2)
    BertForMaskedLM(tiny_config()).save_pretrained(path, max_shard_size="60KB")
    (path / "README.md").write_text("# A card that nobody downloads\n", encoding="utf-8")
    return path


def body(folder: Path) -> torch.Tensor:
    """Return one weight of a folder's model, whole or in parts."""
    parts = [load_file(path) for path in folder.glob("*.safetensors")]
    return next(part[BODY] for part in parts if BODY in part)


@pytest.mark.slow
def test_pinned_cached_and_offline(hub, run, run_offline, train, folder, checkpoint, newer):
    out = train[train.index("--output") + 1]
    pinned = hub.add("models/org/tiny-bert", checkpoint, "v1")
    hub.add("models/org/tiny-bert", newer)
    data = hub.add("datasets/org/reviews", folder)
    train += ["--checkpoint", "org/tiny-bert", "--data", "org/reviews"]

    status, lines = run(*train, "--revision", "v1")
    assert (status, lines[-1]) == (0, f"saved in {out}")
    assert lines[0] == "56 train, 12 validation, 12 test rows; text → bad, good"
    assert torch.equal(body(out), body(checkpoint))
    assert {path.split("/")[4] for path in hub.files("/org/tiny-bert")} == {pinned}
    assert {path.split("/")[5] for path in hub.files("/datasets/org/reviews")} <= {data, "main"}
    assert len(hub.downloads) == len(set(hub.downloads)) == 7  # three splits, four of the model
    weights = (out / "model.safetensors").read_bytes()

    hub.requests.clear()
    assert run(*train, "--revision", "v1")[0] == 0
    assert hub.downloads == []
    assert hub.requests != []
    assert (out / "model.safetensors").read_bytes() == weights

    assert run(*train)[0] == 0  # the newest, in parts
    assert torch.equal(body(out), body(newer))
    assert not any("README" in path for path in hub.files("/org/tiny-bert"))

    hub.close()
    hub.requests.clear()
    for revision, folder in ((["--revision", pinned], checkpoint), ([], newer)):
        status, lines = run_offline(*train, *revision)
        assert status == 0, lines
        assert torch.equal(body(out), body(folder))
    task, _, model = ftkit.load_saved(out)
    assert task.labels == ("bad", "good")
    assert torch.equal(model.state_dict()[BODY], body(newer))
    assert hub.requests == []


@pytest.mark.slow
def test_what_is_cached_does_when_the_hub_is_silent(hub, run, train, folder, checkpoint):
    hub.add("models/org/kept", checkpoint)
    hub.add("datasets/org/kept", folder)
    train += ["--checkpoint", "org/kept", "--data", "org/kept"]
    assert run(*train)[0] == 0
    hub.requests.clear()
    hub.stalls = "."
    status, lines = run(*train)
    assert status == 0, lines
    assert hub.requests == ["GET /api/datasets/org/kept"]  # one wait, then the cache
    hub.close()
    status, lines = run(*train)
    assert status == 0, lines
    assert not any("Retrying" in line for line in lines)


@pytest.mark.parametrize(
    ("option", "name", "text"),
    [
        (
            *("--checkpoint", "org/tiny-brt"),
            'The hub at {hub} has no model "org/tiny-brt". Check the spelling (it reads '
            "owner/name); a private one needs `hf auth login`.",
        ),
        (
            *("--data", "org/revews"),
            'The hub at {hub} has no dataset "org/revews". Check the spelling (it reads '
            "owner/name); a private one needs `hf auth login`.",
        ),
        (
            *("--data", "org/splits:lare"),
            "org/splits:lare: the hub's data set does not load: BuilderConfig 'lare' not found. "
            "Available: ['default']",
        ),
        (
            *("--revision", "v3"),
            'The hub\'s model "org/versions" has no revision "v3". Expected a branch, a tag or a '
            "whole commit; {hub}/org/versions/commits/main lists them.",
        ),
    ],
)
def test_what_is_missing_is_named(hub, run, train, folder, checkpoint, option, name, text):
    hub.add("models/org/versions", checkpoint, "v1", "v2")
    hub.add("datasets/org/splits", folder)
    if option == "--revision":
        train += ["--checkpoint", "org/versions"]
    status, lines = run(*train, option, name)
    assert (status, lines) == (2, ["ftkit train: " + text.format(hub=hub.endpoint)])
    assert hub.downloads == []
    assert not (train[train.index("--output") + 1]).exists()


SILENT = (
    f'"{{name}}" is a hub id, and the hub at {{hub}} does not answer within {PATIENCE} seconds.'
)


@pytest.mark.parametrize(
    ("stalls", "option", "text"),
    [
        ("GET /api/models", "--checkpoint", f"{SILENT} {ENDING}"),
        ("HEAD .*/config.json", "--checkpoint", f"{SILENT} {ENDING}"),
        (
            *("HEAD .*/model.safetensors", "--checkpoint"),
            "{name}: the weights do not load: {host} does not answer within "
            f"{PATIENCE} seconds. {ENDING}",
        ),
        (
            *("GET /blobs", "--checkpoint"),
            "{name}: the weights do not load: {storage} does not answer within "
            f"{PATIENCE} seconds. {ENDING}",
        ),
        ("GET /api/datasets", "--data", f"{SILENT} {ENDING}"),
        ("HEAD .*/train.csv", "--data", f"{SILENT} {ENDING}"),
        ("GET .*/train.csv", "--data", f"{SILENT} {ENDING}"),
    ],
)
def test_a_hub_that_stalls_is_waited_for_once(hub, run, train, copy, folder, stalls, option, text):
    number = re.sub(r"\W", "", stalls).lower()  # a name of its own, of which nothing is cached
    torch.manual_seed(len(stalls) + ord(stalls[-1]))
    BertForMaskedLM(tiny_config()).save_pretrained(copy)
    hub.add(f"models/org/{number}", copy)
    hub.add(f"datasets/org/{number}", folder)
    hub.stalls = stalls
    status, lines = run(*train, option, f"org/{number}")
    host, storage = (address.removeprefix("http://") for address in (hub.endpoint, hub.storage))
    text = text.format(name=f"org/{number}", hub=hub.endpoint, host=host, storage=storage)
    assert (status, lines) == (2, [f"ftkit train: {text}"])
    assert len([line for line in hub.requests if re.search(stalls, line)]) == 1


def test_a_download_that_breaks_off_goes_on_where_it_was(hub, run, train, newer):
    hub.add("models/org/breaks", newer)
    hub.breaks = "GET /blobs"
    assert run(*train, "--checkpoint", "org/breaks")[0] == 0
    assert torch.equal(body(train[train.index("--output") + 1]), body(newer))
    blobs = [line for line in hub.requests if "/blobs/" in line]
    assert len(blobs) == len(set(blobs)) + 1


def test_pickled_weights_are_refused_before_any_download(hub, run, train, copy):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    hub.add("models/org/pickled", copy)
    text = (
        "ftkit train: org/pickled: its weights are pickled (pytorch_model.bin), and unpickling can "
        "run any code. Expected model.safetensors; the hub converts a repository on request."
    )
    assert run(*train, "--checkpoint", "org/pickled") == (2, [text])
    assert hub.requests == ["GET /api/models/org/pickled"]


def test_pickled_weights_are_refused_although_some_files_are_cached(
    hub, run, run_offline, train, copy, home, monkeypatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    hub.add("models/org/half", copy)
    for name in ("config.json", "pytorch_model.bin"):
        hf_hub_download("org/half", name, endpoint=hub.endpoint, cache_dir=home / "hub")
    hub.requests.clear()
    for command in (run, run_offline):
        status, lines = command(*train, "--checkpoint", "org/half")
        assert (status, len(lines)) == (2, 1), lines
        assert "org/half: its weights are pickled (pytorch_model.bin)" in lines[0]
    assert hub.requests == ["GET /api/models/org/half"]


def test_code_of_a_checkpoint_is_refused(hub, run, train, copy, tmp_path):
    config = json.loads((copy / "config.json").read_text())
    config.update(model_type="mybert", auto_map={"AutoConfig": "evil.Config"})
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    hub.add("models/org/code", copy)
    text = (
        "ftkit train: org/code: wants to run code of its own (auto_map in config.json), and ftkit "
        "runs none. Choose a checkpoint whose architecture is in transformers."
    )
    assert run(*train, "--checkpoint", "org/code") == (2, [text])
    assert [line.rsplit("/", 1)[1] for line in hub.downloads] == ["config.json"]
    assert not (tmp_path / "ran").exists()


def test_code_of_a_data_set_is_refused(hub, run, train, folder, tmp_path):
    (folder / "script.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    hub.add("datasets/org/script", folder)
    text = (
        "ftkit train: org/script: wants to run code of its own (script.py), and ftkit runs none. "
        "Choose a data set whose rows are files, such as Parquet."
    )
    assert run(*train, "--data", "org/script") == (2, [text])
    assert hub.requests == ["GET /api/datasets/org/script"]
    assert not (tmp_path / "ran").exists()


def test_the_process_keeps_its_own_client_outside_our_calls(tmp_path):
    before = get_session()
    names = ftkit.hub.cached_names("nobody/nothing", "model")
    assert names == []
    after = get_session()
    assert type(after.send) is type(before.send)  # a method, not the one with limits
    with ftkit.hub.time_limits():
        assert type(get_session().send) is functools.partial
        with ftkit.hub.time_limits():
            assert type(get_session().send) is functools.partial
    assert type(get_session().send) is type(before.send)
