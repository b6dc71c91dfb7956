"""Whatever happens to the process, a resumed run ends in the same bits as an undisturbed one."""

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

import ftkit
from ftkit.training.checkpoints import newest_checkpoint
from tests import faults
from tests.conftest import ADJECTIVES, message, sentences, write_csv

pytestmark = pytest.mark.skipif(os.name == "nt", reason="SIGKILL, forkserver and quotas are POSIX")
KILLS = 20


def wait_for(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def finish(process) -> int:
    process.join(timeout=120)
    return process.exitcode


@pytest.fixture(scope="module")
def reviews(tmp_path_factory) -> Path:
    """A folder with 56 rows to train on, 12 to validate and 12 to test."""
    folder = tmp_path_factory.mktemp("data") / "reviews"
    cuts = {"train": slice(0, 28), "validation": slice(28, 34), "test": slice(34, 40)}
    for split, cut in cuts.items():
        rows = [{"text": t, "label": label} for label in ADJECTIVES for t in sentences(label)[cut]]
        write_csv(folder / f"{split}.csv", rows)
    return folder


@pytest.fixture(scope="module")
def encoded_dir(reviews, task, tokenizer) -> Path:
    """The same rows encoded, for other processes to load."""
    task.encode(ftkit.load_splits(reviews), tokenizer).save_to_disk(reviews.parent / "encoded")
    return reviews.parent / "encoded"


@pytest.fixture(scope="module")
def undisturbed(encoded_dir, tmp_path_factory) -> tuple[bytes, float]:
    """The weights of a run that nothing happened to, and the seconds it took."""
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(faults.start(faults.train, encoded_dir, folder / "warm"))
    start = time.monotonic()
    assert finish(faults.start(faults.train, encoded_dir, folder / "whole")) == 0
    return (folder / "whole" / faults.WEIGHTS).read_bytes(), time.monotonic() - start


def test_killed_at_random_points(encoded_dir, undisturbed, tmp_path):
    weights, seconds = undisturbed
    rng, killed = random.Random(0), 0
    for i in range(10 * KILLS):
        output = tmp_path / f"run{i}"
        process = faults.start(faults.train, encoded_dir, output)
        time.sleep(rng.uniform(0.1, 0.9) * seconds)
        process.kill()
        killed += finish(process) == -signal.SIGKILL and (output / "checkpoints").exists()
        assert finish(faults.start(faults.train, encoded_dir, output)) == 0
        assert (output / faults.WEIGHTS).read_bytes() == weights
        shutil.rmtree(output)
        if killed == KILLS:
            return
    pytest.fail(f"only {killed} runs were killed after their first checkpoint")


@pytest.mark.parametrize("flushes", [1, 3, 6, 7, 8, 20, 40])
def test_killed_in_the_middle_of_a_save(encoded_dir, undisturbed, tmp_path, flushes):
    output = tmp_path / "run"
    process = faults.start(faults.train_and_die_in_a_save, encoded_dir, output, flushes)
    assert finish(process) == -signal.SIGKILL
    assert finish(faults.start(faults.train, encoded_dir, output)) == 0
    assert (output / faults.WEIGHTS).read_bytes() == undisturbed[0]
    assert not list((output / "checkpoints").glob(".*"))


@pytest.fixture(scope="module")
def command(checkpoint, reviews) -> list[str]:
    """A training of a second or more on the command line."""
    arguments = ["train", "--checkpoint", checkpoint, "--data", reviews, "--bf16", "false"]
    return [*map(str, arguments), "--num-train-epochs", "12", "--save-steps", "3", "--batch-size=4"]


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory) -> Path:
    """What the command writes when nothing happens to it."""
    output = tmp_path_factory.mktemp("command") / "whole"
    assert finish(run_command(command, output)) == 0
    return output


def run_command(command, output: Path, *options, **limits):
    arguments = [*command, "--output", str(output), *options]
    return faults.start(faults.run_ftkit, arguments, output.with_suffix(".err"), *limits.values())


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_saves_and_stops(command, whole, tmp_path, signum, status):
    output = tmp_path / "out"
    process = run_command(command, output)
    wait_for(lambda: list(output.glob("checkpoints/step-*")))
    os.kill(process.pid, signum)
    assert finish(process) == status
    path, _, state = newest_checkpoint(output / "checkpoints")
    step = state["progress"]["step"]
    assert (output.with_suffix(".err")).read_text().splitlines()[-1] == (
        f"ftkit train: stopped after step {step} of 168; saved in {output / 'checkpoints'}. "
        "Go on with --resume."
    )
    assert path.name == f"step-{step:08d}"
    assert finish(run_command(command, output)) == 2
    assert "Go on with --resume, or begin anew" in output.with_suffix(".err").read_text()
    assert finish(run_command(command, output, "--resume")) == 0
    names = ("model.safetensors", "training.json", "config.json")
    for name in names[: 1 + (signum == signal.SIGTERM)]:
        assert (output / name).read_bytes() == (whole / name).read_bytes(), name
    assert not (output / "checkpoints").exists()
    assert finish(run_command(command, output, "--resume")) == 0  # finished: nothing to do


def test_resuming_another_run_is_refused(command, tmp_path):
    output = tmp_path / "out"
    process = run_command(command, output)
    wait_for(lambda: list(output.glob("checkpoints/step-*")))
    os.kill(process.pid, signal.SIGTERM)
    assert finish(process) == 75
    assert finish(run_command(command, output, "--resume", "--learning-rate", "1e-3")) == 2
    assert output.with_suffix(".err").read_text().splitlines()[-1] == (
        "ftkit train: The checkpoint is of another run: learning_rate is 0.001 now, and was 5e-05."
    )


def test_a_file_that_may_not_grow(command, tmp_path):
    """A quota: the first save fails, with a message; nothing half-written stays."""
    output = tmp_path / "out"
    assert finish(run_command(command, output, bytes_a_file=60_000)) == 2
    last = output.with_suffix(".err").read_text().splitlines()[-1]
    assert last.startswith(f"ftkit train: {output / 'checkpoints' / 'step-00000003'}: could not be")
    assert not list(output.rglob("*.safetensors"))


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 8 MiB, where the machine allows one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may not mount a tmpfs")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_keeps_the_old_checkpoint(command, whole, small_disk):
    output = small_disk / "out"
    process = run_command(command, output)
    wait_for(lambda: list(output.glob("checkpoints/step-*")))
    os.kill(process.pid, signal.SIGTERM)
    assert finish(process) == 75
    path, *_ = newest_checkpoint(output / "checkpoints")
    free = shutil.disk_usage(small_disk).free
    (small_disk / "filler").write_bytes(bytes(max(0, free - 100_000)))
    assert finish(run_command(command, output, "--resume")) == 2
    assert "No space left on device" in output.with_suffix(".err").read_text().splitlines()[-1]
    assert newest_checkpoint(output / "checkpoints")[0] == path
    (small_disk / "filler").unlink()
    assert finish(run_command(command, output, "--resume")) == 0
    name = "model.safetensors"
    assert (output / name).read_bytes() == (whole / name).read_bytes()


def test_ctrl_c_in_a_notebook_and_on_again(encoded_dir, tmp_path):
    """Interrupt a real kernel in the middle of the loop; looping over the run goes on."""
    from jupyter_client.manager import start_new_kernel

    setup = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent.parent.parent)!r})
import time, torch, ftkit
from pathlib import Path
from tests.faults import CONFIG, BertForSequenceClassification, DatasetDict, tiny_config
torch.set_num_threads(1)
encoded = DatasetDict.load_from_disk({str(encoded_dir)!r})
def fresh_run():
    torch.manual_seed(0)
    model = BertForSequenceClassification(tiny_config(num_labels=2))
    return ftkit.TrainingRun(model, encoded["train"], CONFIG)
whole, run = fresh_run(), fresh_run()
for step in whole: pass
"""
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        reply = client.execute(setup, reply=True, timeout=120)
        assert reply["content"]["status"] == "ok", reply["content"]
        begun = tmp_path / "begun"
        loop = f"for step in run:\n    Path({str(begun)!r}).touch()\n    time.sleep(0.2)"
        busy = client.execute(loop, stop_on_error=False)
        wait_for(begun.exists)
        manager.interrupt_kernel()
        wait = client.get_shell_msg(timeout=60)
        assert wait["parent_header"]["msg_id"] == busy
        assert wait["content"]["ename"] == "KeyboardInterrupt"
        check = """
assert 0 < run.step < run.total_steps, run.step
for step in run: pass
for one, other in zip(run.model.parameters(), whole.model.parameters(), strict=True):
    assert torch.equal(one, other)
"""
        reply = client.execute(check, reply=True, timeout=120)
        assert reply["content"]["status"] == "ok", reply["content"]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_a_resumed_run_wants_its_own_data(encoded, model, tmp_path):
    run = ftkit.TrainingRun(model, encoded["train"], faults.CONFIG)
    next(run)
    tensors, progress = run.state_dict()
    other = ftkit.TrainingRun(model, encoded["train"].select(range(40)), faults.CONFIG)
    text = message(other.load_state_dict, tensors, progress)
    assert text.splitlines()[0] == ("The checkpoint is of another run: rows is 40 now, and was 56.")
