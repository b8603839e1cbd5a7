"""The walk through a network finds what torch's own finds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from webui.engine.memory.weights import Weight, layers_of, network_bytes, parameters_of, tensors_of, weigh

CPU, META = torch.device("cpu"), torch.device("meta")


@pytest.fixture
def network() -> nn.Module:
    """Layers in layers, one of them in two places, one parameter in two layers, buffers, one layer without weights."""
    shared = nn.Linear(3, 5)
    tied = nn.Linear(3, 5, bias=False)
    tied.weight = shared.weight
    half = nn.Conv2d(4, 2, 3, dtype=torch.float16)
    net = nn.Sequential(
        shared, nn.Sequential(half, nn.BatchNorm2d(2), nn.SiLU()), nn.ModuleDict({"again": shared}), tied
    )
    net.register_module("left out", None)
    net.register_module("twice", tied)
    return net


def test_every_layer_parameter_and_buffer_is_found_once(network: nn.Module) -> None:
    found = [*map(id, layers_of(network))]
    assert sorted(found) == sorted(map(id, network.modules()))
    assert sorted(map(id, parameters_of(network))) == sorted(map(id, network.parameters()))
    everything = [*network.parameters(), *network.buffers()]
    assert sorted(map(id, tensors_of(network))) == sorted(map(id, everything))


def test_bytes_are_those_of_the_parameters_and_of_one_device(network: nn.Module) -> None:
    linear, half, norm = (15 + 5) * 4, (4 * 2 * 9 + 2) * 2, (2 + 2) * 4
    everything = linear + half + norm
    assert network_bytes(network) == everything
    assert weigh(network, CPU) == Weight(everything, everything, half)
    network[1].to(META)
    assert weigh(network, CPU) == Weight(everything, linear, half)
    assert weigh(network, META) == Weight(everything, half + norm, half)


def test_what_only_has_parameters_is_measured_too(network: nn.Module) -> None:
    class Wrapped:
        parameters = network.parameters

    assert network_bytes(Wrapped()) == network_bytes(network)
