"""Where and how precisely to compute, on machines that are not here."""

import pytest
import torch

from ftkit import devices

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")


@pytest.mark.parametrize(
    ("device", "has", "asked", "expected"),
    [
        (GPU, True, {}, torch.bfloat16),
        (GPU, False, {}, torch.float16),  # a T4
        (GPU, False, {"bf16": False}, None),
        (GPU, False, {"fp16": False}, None),
        (GPU, False, {"bf16": True}, torch.bfloat16),
        (GPU, True, {"fp16": True}, torch.float16),
        (GPU, True, {"bf16": False}, None),
        (CPU, False, {}, None),
        (CPU, True, {}, torch.bfloat16),
        (CPU, False, {"fp16": True}, torch.float16),
    ],
)
def test_what_is_computed_in(monkeypatch, device, has, asked, expected):
    monkeypatch.setattr(devices, "supports_bf16", lambda _: has)
    options = {"bf16": None, "fp16": None, **asked}
    assert devices.mixed_precision(device, **options) is expected


def test_tf32_is_for_gpus_alone(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "set_float32_matmul_precision", asked.append)
    for device, allowed in ((CPU, True), (CPU, False), (GPU, True), (GPU, False)):
        devices.set_tf32(device, allowed)
    assert asked == ["high", "highest"]


def test_a_seed_for_a_block():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(8)
    inside = torch.rand(2)
    torch.manual_seed(3)
    with devices.fork_seed(8, CPU):
        assert torch.equal(torch.rand(2), inside)
    assert torch.equal(torch.rand(2), expected)


def test_a_seed_touches_the_generator_of_one_gpu(monkeypatch):
    """The states of eight GPUs copied at every step would be seven too many."""
    forked = []
    monkeypatch.setattr(
        torch.random, "fork_rng", lambda devices: forked.append(devices) or _Block()
    )
    monkeypatch.setattr(torch.cuda, "device", lambda device: forked.append(device) or _Block())
    monkeypatch.setattr(torch.cuda, "manual_seed", forked.append)
    state = torch.get_rng_state()
    with devices.fork_seed(8, GPU):
        pass
    torch.set_rng_state(state)
    assert forked == [[GPU], GPU, 8]


class _Block:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None
