"""Checkpoints: written whole, the newest valid one found, damage named."""

import pytest
import torch

from ftkit.training.checkpoints import (
    CheckpointWarning,
    newest_checkpoint,
    write_checkpoint,
)


def write(folder, step):
    tensors = {"model": {"w": torch.full((50,), float(step))}, "optimizer": {}}
    return write_checkpoint(folder, step, tensors, {"step": step})


def test_what_is_written_is_read(tmp_path):
    assert newest_checkpoint(tmp_path / "missing") is None
    path = write(tmp_path, 7)
    found, tensors, state = newest_checkpoint(tmp_path)
    assert (found, state) == (path, {"step": 7})
    assert torch.equal(tensors["model"]["w"], torch.full((50,), 7.0))
    assert tensors["optimizer"] == {}


def test_two_are_kept_and_the_newest_is_taken(tmp_path):
    for step in (9, 10, 100):
        write(tmp_path, step)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["step-00000010", "step-00000100"]
    assert newest_checkpoint(tmp_path)[2] == {"step": 100}


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


DAMAGES = {
    "truncated": ("model.safetensors", truncate, "model.safetensors has 271 bytes; expected 272"),
    "bit-flipped": (
        "model.safetensors",
        flip_a_bit,
        "model.safetensors is damaged: its sha256 is not the one in manifest.json",
    ),
    "state": (
        "state.json",
        flip_a_bit,
        "state.json is damaged: its sha256 is not the one in manifest.json",
    ),
    "half-written": ("manifest.json", lambda path: path.unlink(), "manifest.json is missing"),
    "file gone": (
        "optimizer.safetensors",
        lambda p: p.unlink(),
        "optimizer.safetensors is missing",
    ),
    "manifest": ("manifest.json", truncate, "Expecting"),
    "manifest of another form": ("manifest.json", lambda p: p.write_text("[1]"), "'list' object"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_and_the_older_one_taken(tmp_path, damage):
    name, harm, reason = DAMAGES[damage]
    write(tmp_path, 1)
    newest = write(tmp_path, 2)
    harm(newest / name)
    with pytest.warns(CheckpointWarning) as caught:
        found, _, state = newest_checkpoint(tmp_path)
    assert (found.name, state) == ("step-00000001", {"step": 1})
    assert str(caught[0].message).startswith(f"{newest} is skipped: {reason}")


def test_all_damaged_is_none(tmp_path):
    flip_a_bit(write(tmp_path, 1) / "model.safetensors")
    with pytest.warns(CheckpointWarning):
        assert newest_checkpoint(tmp_path) is None


def test_writing_again_replaces(tmp_path):
    write(tmp_path, 3)
    path = write_checkpoint(tmp_path, 3, {"model": {"w": torch.zeros(2)}}, {"step": 33})
    assert newest_checkpoint(tmp_path)[2] == {"step": 33}
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
