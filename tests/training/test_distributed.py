"""Several processes train as one: the same losses, checkpoints for any number, clear ends."""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from datasets import DatasetDict
from safetensors.torch import load_file, save_file
from transformers import BertForSequenceClassification

import ftkit
from ftkit.training import distributed
from ftkit.training.checkpoints import newest_checkpoint
from tests import faults
from tests.conftest import message, tiny_config
from tests.training.test_faults import encoded_dir, finish, reviews, wait_for  # noqa: F401 - fixtures

pytestmark = pytest.mark.skipif(os.name == "nt", reason="forkserver and gloo over TCP are POSIX")


def train(encoded_dir: Path, output_dir: Path, settings: dict) -> int:  # noqa: F811
    """Train in each process; the first writes losses and weights."""
    distributed.init_process_group()
    dropout = settings.pop("dropout")
    torch.manual_seed(0)
    options = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    model = BertForSequenceClassification(tiny_config(num_labels=2, **options))
    encoded = DatasetDict.load_from_disk(encoded_dir)
    if settings.pop("shard", False):
        distributed.shard(model)
    stop = settings.pop("stop", 10**6)
    base = {"learning_rate": 1e-3, "num_train_epochs": 2, "batch_size": 8, "bf16": False}
    config = ftkit.TrainingConfig(**{**base, **settings})
    if stop < 10**6:
        signal_self_at(model, stop)
    scored = []  # rows that this process evaluates
    model.classifier.register_forward_hook(
        lambda module, _, logits: scored.append(len(logits) * (not module.training))
    )
    try:
        history = ftkit.train(
            model, encoded, faults.TASK, config, output_dir=output_dir, resume=True
        )
    except ftkit.StoppedError:
        return 75
    weights = {
        name: distributed.full_tensor(p).contiguous() for name, p in model.state_dict().items()
    }
    if distributed.get_rank() == 0:
        save_file(weights, output_dir / "weights.safetensors")
        losses = [step.loss for step in history.steps]
        (output_dir / "losses.json").write_text(json.dumps(losses))
        (output_dir / "evaluations.json").write_text(json.dumps(history.evaluations))
    (output_dir / f"scored-{distributed.get_rank()}").write_text(str(sum(scored)))
    distributed.destroy_process_group()
    return 0


def signal_self_at(model, step: int) -> None:
    """Let the last process get SIGTERM in its n-th training step."""
    seen = []

    def count(module, _):
        seen.extend([1] * module.training)
        if len(seen) == step and distributed.get_rank() == distributed.get_world_size() - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    model.register_forward_pre_hook(count)


def run(processes: int, encoded_dir, output: Path, *, status: int = 0, **settings):  # noqa: F811
    output.mkdir(exist_ok=True)
    settings = {"dropout": 0.0, **settings}
    started = faults.start_together(processes, train, encoded_dir, output, settings)
    assert [finish(process) for process in started] == [status] * processes
    if status == 0:
        losses = json.loads((output / "losses.json").read_text())
        return losses, load_file(output / "weights.safetensors")
    return None


def assert_alike(one, other, tolerance: float = 1e-5) -> None:
    assert one[0] == pytest.approx(other[0], abs=tolerance)
    for name, weight in one[1].items():
        torch.testing.assert_close(weight, other[1][name], atol=tolerance, rtol=0)


@pytest.fixture(scope="module")
def alone(encoded_dir, tmp_path_factory):  # noqa: F811
    """What one process gives with some settings; each is trained once."""

    @functools.cache
    def train_alone(**settings):
        return run(1, encoded_dir, tmp_path_factory.mktemp("alone"), **settings)

    return train_alone


SGD = {"optim": "sgd", "learning_rate": 0.1}  # AdamW would magnify the rounding of tiny gradients


@pytest.mark.parametrize("shard", [False, True])
@pytest.mark.parametrize("processes", [2, 3])
def test_the_same_losses_as_one_process(encoded_dir, alone, tmp_path, processes, shard):  # noqa: F811
    several = run(processes, encoded_dir, tmp_path / "several", shard=shard, **SGD)
    assert len(set(several[0])) == 14
    assert_alike(alone(**SGD), several)


@pytest.mark.parametrize(("processes", "shard"), [(2, False), (3, False), (5, False), (2, True)])
def test_validation_is_shared_out(encoded_dir, alone, tmp_path, processes, shard):  # noqa: F811
    """Twelve rows, three validations: of 5 processes two score two rows each time, the rest three.

    A sharded model computes every row in all processes together.
    """
    run(processes, encoded_dir, tmp_path, shard=shard, **SGD)
    run(1, encoded_dir, tmp_path / "alone", **SGD)
    read = [
        json.loads((p / "evaluations.json").read_text()) for p in (tmp_path, tmp_path / "alone")
    ]
    for several, one in zip(*read, strict=True):
        assert several == pytest.approx(one, abs=1e-5)
    scored = [int((tmp_path / f"scored-{rank}").read_text()) for rank in range(processes)]
    assert scored == [3 * (12 if shard else len(range(r, 12, processes))) for r in range(processes)]


def test_a_gpu_of_its_own_for_each_process(monkeypatch):
    """NCCL is told which one before it begins; without that, all processes meet on the first."""
    called = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed, "best_device", lambda: torch.device("cuda", 1))
    monkeypatch.setattr(torch.cuda, "set_device", called.append)
    monkeypatch.setattr(
        torch.distributed, "init_process_group", lambda *args, **kw: called.append((args, kw))
    )
    distributed.init_process_group()
    device = torch.device("cuda", 1)
    assert called == [device, (("nccl",), {"timeout": distributed.TIMEOUT, "device_id": device})]


def test_the_number_of_one_process_makes_no_gpu_wait(monkeypatch):
    monkeypatch.setattr(distributed, "best_device", lambda: torch.device("cuda", 0))
    assert distributed.all_reduce_max(15) == 15


@pytest.mark.parametrize("shard", [False, True])
def test_adamw_too_has_the_same_losses(encoded_dir, alone, tmp_path, shard):  # noqa: F811
    two = run(2, encoded_dir, tmp_path / "two", shard=shard)
    assert alone()[0] == pytest.approx(two[0], abs=1e-5)


def test_the_same_dropout_as_accumulation(encoded_dir, alone, tmp_path):  # noqa: F811
    """Two processes draw what one draws for two micro-batches."""
    two = run(2, encoded_dir, tmp_path / "two", dropout=0.1, **SGD)
    assert_alike(alone(dropout=0.1, gradient_accumulation_steps=2, **SGD), two)


@pytest.mark.parametrize("shard", [False, True])
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 2)])
def test_another_number_of_processes_goes_on(encoded_dir, alone, tmp_path, before, after, shard):  # noqa: F811
    """SIGTERM reaches one process only; all stop after the same step, and any number goes on."""
    if shard and (before, after) == (1, 2):
        start, end = {}, {"shard": True}
    else:
        start, end = {"shard": shard and before > 1}, {"shard": shard and after > 1}
    run(before, encoded_dir, tmp_path / "parts", status=75, stop=9, **start)
    assert newest_checkpoint(tmp_path / "parts" / "checkpoints")[2]["progress"]["step"] == 9
    losses, _ = run(after, encoded_dir, tmp_path / "parts", **end)
    assert losses == pytest.approx(alone()[0], abs=1e-5)


def test_sharding_alone_is_refused(model):
    assert message(distributed.shard, model) == (
        "--shard needs several processes: torchrun --nproc-per-node 2 -m ftkit train …"
    )


@pytest.fixture
def command(checkpoint, folder):
    """The options of a training that takes long enough to be disturbed."""
    options = {"checkpoint": checkpoint, "data": folder, "num-train-epochs": 12, "batch-size": 4}
    options |= {"bf16": "false", "save-steps": 2}
    return ["train", *(f"--{name}={value}" for name, value in options.items())]


def run_rank(arguments: list[str], folder: Path) -> int:
    """Run a command in one of several processes, its stderr in a file of its own."""
    return faults.run_ftkit(arguments, folder / f"{os.environ['RANK']}.err")


def losses_of(output: Path) -> list[float]:
    return json.loads((output / "training.json").read_text())["losses"]


def assert_goes_on(command, output: Path) -> None:
    """One process goes on from the checkpoint that lost processes left."""
    path, _, state = newest_checkpoint(output / "checkpoints")
    assert 0 < state["progress"]["step"] < 168, path
    errors = output.with_name("resumed.err")
    arguments = [*command, f"--output={output}", "--resume"]
    assert finish(faults.start(faults.run_ftkit, arguments, errors)) == 0, errors.read_text()
    assert len(losses_of(output)) == 168


@pytest.mark.parametrize("extra", [[], ["--shard"]])
def test_a_killed_process_ends_the_others(command, tmp_path, extra):
    output = tmp_path / "out"
    arguments = [*command, f"--output={output}", *extra]
    first, last = faults.start_together(2, run_rank, arguments, tmp_path)
    wait_for(lambda: list(output.glob("checkpoints/step-*")), 120)
    last.kill()
    assert finish(first) == 2
    assert "has lost another one" in (tmp_path / "0.err").read_text()
    assert_goes_on(command, output)


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--no-python"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def test_a_killed_process_ends_the_job(command, tmp_path):
    """With torchrun itself: a clear message, a valid checkpoint, and one process goes on."""
    output = tmp_path / "out"
    started = [*TORCHRUN, "--standalone", "--nproc-per-node=2", sys.executable, "-m", "ftkit"]
    started += [*command, f"--output={output}", "--shard"]
    job = subprocess.Popen(started, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: list(output.glob("checkpoints/step-*")), 120)
    children = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    _, errors = job.communicate(timeout=120)
    assert job.returncode != 0
    assert "has lost another one" in errors or "stopped after step" in errors
    assert "Signal 9 (SIGKILL)" in errors
    assert_goes_on(command, output)


def namespaces(tmp_path):
    """Two network namespaces joined by a cable, as two hosts; the commands that clean up."""
    names = ("ftkit-a", "ftkit-b")
    commands = [["ip", "netns", "add", name] for name in names]
    cable = ["type", "veth", "peer", "name", "vb", "netns", names[1]]
    commands.append(["ip", "link", "add", "va", "netns", names[0], *cable])
    for name, link, address in ((names[0], "va", "10.99.0.1/24"), (names[1], "vb", "10.99.0.2/24")):
        inside = ["ip", "-n", name]
        commands.append([*inside, "addr", "add", address, "dev", link])
        commands += [[*inside, "link", "set", device, "up"] for device in ("lo", link)]
    for line in commands:
        if subprocess.run(line, capture_output=True, check=False).returncode:
            return None
    return names


@pytest.fixture
def hosts(tmp_path):
    """The names of two namespaces, where this user may make them."""
    names = namespaces(tmp_path) if shutil.which("ip") else None
    yield names
    for name in ("ftkit-a", "ftkit-b"):
        if shutil.which("ip"):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def test_two_hosts(command, hosts, tmp_path):
    """One process in each of two network namespaces; the losses are those of a single process."""
    if hosts is None:
        pytest.skip("this user may not make network namespaces")
    output, alone = tmp_path / "out", tmp_path / "alone"
    short = [*command, "--num-train-epochs=2", "--save-steps=0"]
    jobs = []
    for rank, (name, link) in enumerate(zip(hosts, ("va", "vb"), strict=True)):
        where = ["--nnodes=2", f"--node-rank={rank}", "--master-addr=10.99.0.1"]
        where += ["--master-port=29777", "--nproc-per-node=1"]
        started = [*TORCHRUN, *where, sys.executable, "-m", "ftkit", *short, f"--output={output}"]
        environment = {**ENVIRONMENT, "GLOO_SOCKET_IFNAME": link}
        prefix = ["ip", "netns", "exec", name]
        jobs.append(subprocess.Popen([*prefix, *started], env=environment))
    assert [job.wait(timeout=180) for job in jobs] == [0, 0]
    single = [*short, "--gradient-accumulation-steps=2", f"--output={alone}"]
    assert finish(faults.start(faults.run_ftkit, single, tmp_path / "alone.err")) == 0
    assert losses_of(output) == pytest.approx(losses_of(alone), abs=1e-5)
