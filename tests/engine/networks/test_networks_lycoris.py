"""Each family of LyCORIS acts on a model as LyCORIS's own modules do, from a file in LyCORIS's own format."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from network_models import (
    adapters_of,
    lora_file,
    randomised,
    small_text_encoder,
    small_unet,
    text_output,
    unet_output,
)

from webui.engine.networks.lora import Strength

lycoris = pytest.importorskip("lycoris.wrapper")

CASES: dict[str, dict[str, Any]] = {
    "LoRA": {"algo": "lora", "conv_dim": 0},
    "LoCon": {"algo": "lora"},
    "LoCon, Tucker": {"algo": "lora", "use_tucker": True},
    "DoRA by rows": {"algo": "lora", "dora_wd": True, "wd_on_output": True},
    "DoRA by columns": {"algo": "lora", "dora_wd": True, "wd_on_output": False},
    "LoHa": {"algo": "loha", "size": 0.3},
    "LoHa, Tucker": {"algo": "loha", "use_tucker": True, "size": 0.3},
    "DoHa": {"algo": "loha", "dora_wd": True},
    "LoKr": {"algo": "lokr", "factor": 4},
    "LoKr, both decomposed": {"algo": "lokr", "decompose_both": True, "dim": 1, "factor": 4, "size": 0.2},
    "LoKr, Tucker": {"algo": "lokr", "use_tucker": True, "dim": 2, "factor": 2},
    "LoKr, full matrix": {"algo": "lokr", "full_matrix": True},
    "DoKr": {"algo": "lokr", "dora_wd": True},
    "GLoRA": {"algo": "glora"},
    "IA3": {"algo": "ia3"},
    "OFT": {"algo": "diag-oft"},
    "OFT, constrained and rescaled": {"algo": "diag-oft", "constraint": 0.01, "rescaled": True},
    "BOFT": {"algo": "boft"},
    "BOFT, rescaled": {"algo": "boft", "rescaled": True},
    "full": {"algo": "full"},
    "norm": {"algo": "lora", "train_norm": True},
}


@pytest.fixture(autouse=True)
def _its_eager_mathematics(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Not the compiled one, which takes a C++ compiler and minutes."""
    monkeypatch.setenv("LYCORIS_KERNEL", "torch")
    return


def trained(
    module: Any, prefix: str, *, dim: int = 4, conv_dim: int | None = None, size: float = 0.05, **options: Any
) -> Any:
    """A network of LyCORIS at work on `module`, with kohya's prefix and random values."""
    lycoris.LycorisNetwork.LORA_PREFIX = prefix
    network = lycoris.create_lycoris(
        module, 1.0, dim, 2.0, conv_dim=dim if conv_dim is None else conv_dim, conv_alpha=1.0, **options
    )
    network.apply_to()
    randomised(network.parameters, size)
    return network.eval()


@pytest.mark.parametrize("case", CASES)
def test_a_lycoris_file_acts_as_lycoris_does(case: str, tmp_path: Path) -> None:
    theirs, their_text = small_unet(), small_text_encoder()
    tensors: dict[str, Any] = {}
    for module, prefix in ((theirs, "lora_unet"), (their_text, "lora_te")):
        network = trained(module, prefix, **CASES[case])
        tensors |= network.state_dict()
    expected, expected_text = unet_output(theirs), text_output(their_text)

    unet, encoder = small_unet(), small_text_encoder()
    before, before_text = unet_output(unet), text_output(encoder)
    adapters = adapters_of(unet, encoder)
    file = lora_file(tmp_path / "a.safetensors", tensors)
    for name in ("unet", "te1"):
        adapters.use(name, [Strength(file, 1.0)])
    counts = adapters.counts(file)
    assert (counts.skipped, counts.reasons) == (0, ())
    assert counts.applied > 20
    assert not torch.allclose(before, expected, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(before_text, expected_text, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(unet_output(unet), expected, rtol=2e-4, atol=2e-4)
    torch.testing.assert_close(text_output(encoder), expected_text, rtol=2e-4, atol=2e-4)


def test_glora_in_the_order_of_its_first_files_is_the_same_network(tmp_path: Path) -> None:
    """LyCORIS once called the factors the other way round: W a2 a1 + b2 b1."""
    tensors = trained(small_unet(), "lora_unet", algo="glora").state_dict()
    swapped = {"a1": "a2", "a2": "a1", "b1": "b2", "b2": "b1"}

    def renamed(name: str) -> str:
        layer, role, rest = name.rsplit(".", 2) if name.endswith(".weight") else (name, "", "")
        return f"{layer}.{swapped[role]}.{rest}" if role in swapped else name

    now, first = outputs_with(tmp_path, tensors, {renamed(name): tensor for name, tensor in tensors.items()})
    assert torch.equal(now, first)


def test_oft_as_its_first_files_have_it_is_the_same_network(tmp_path: Path) -> None:
    """LyCORIS once kept the rotations themselves, (I + Q)(I - Q)^-1, as `oft_diag`."""
    tensors = trained(small_unet(), "lora_unet", algo="diag-oft", rescaled=True).state_dict()

    def rotations(blocks: torch.Tensor) -> torch.Tensor:
        q, identity = blocks - blocks.mT, torch.eye(blocks.shape[-1])
        return torch.linalg.solve(identity - q, identity + q, left=False)

    before = {
        name.replace("oft_blocks", "oft_diag"): rotations(tensor) if "oft_blocks" in name else tensor
        for name, tensor in tensors.items()
    }
    assert before.keys() != tensors.keys()
    torch.testing.assert_close(*outputs_with(tmp_path, tensors, before), rtol=1e-4, atol=1e-4)


def outputs_with(tmp_path: Path, *files: dict[str, Any]) -> list[torch.Tensor]:
    """What the small UNet gives with each of these files, which all change it."""
    found, plain = [], unet_output(small_unet())
    for number, tensors in enumerate(files):
        unet = small_unet()
        adapters = adapters_of(unet, small_text_encoder())
        file = lora_file(tmp_path / f"{number}.safetensors", tensors)
        adapters.use("unet", [Strength(file, 1.0)])
        assert (adapters.counts(file).skipped, adapters.counts(file).reasons) == (0, ())
        found.append(unet_output(unet))
        assert not torch.allclose(found[-1], plain, rtol=1e-3, atol=1e-3)
    return found
