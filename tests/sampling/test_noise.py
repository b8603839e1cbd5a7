"""The noise of a picture: the published numbers, and a batch that equals its singles."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
import torchsde
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from webui.sampling import (
    BrownianTree,
    GaussianMixture,
    NoiseSource,
    PhiloxGenerator,
    PictureNoise,
    sample,
    schedule,
    slerp,
)
from webui.sampling.noise import paste_centred

SHAPE = (4, 6, 5)
SOURCES: tuple[NoiseSource, ...] = ("CPU", "GPU", "NV")


def torch_noise(seed: int, *shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


# Philox


@pytest.mark.parametrize(
    ("seed", "shape", "expected"),
    [
        (0, (3, 4), [-0.924662, -0.425344, -2.643846, 0.145184, -0.120867, -0.579726, -0.622851, -0.328387,
                     -1.074542, -0.363144, -1.671050, 2.265505]),
        (42, (8,), [0.194019, 2.161374, -0.172051, 0.849060, -1.924399, 0.652985, -0.649441, -0.817525]),
        (2**32 + 7, (4,), [-0.282735, -1.012804, 0.009529, 0.447085]),
    ],
)  # fmt: skip
def test_philox_gives_cudas_numbers(seed: int, shape: tuple[int, ...], expected: list[float]) -> None:
    numbers = PhiloxGenerator(seed).randn(shape)
    assert numbers.shape == shape
    assert numbers.dtype == torch.float32
    assert numbers.flatten().tolist() == pytest.approx(expected, abs=1.5e-6)


def test_a_second_call_goes_on_in_the_stream() -> None:
    generator = PhiloxGenerator(0)
    generator.randn((3, 4))
    assert generator.randn((4,)).tolist() == pytest.approx([0.180826, -0.552263, 0.923813, -0.734970], abs=1.5e-6)


@pytest.mark.parametrize("seed", [0, 7, 2**32, 2**63 - 1, 2**64 - 1, -1])
def test_philox_numbers_are_normal(seed: int) -> None:
    numbers = PhiloxGenerator(seed).randn((50_000,))
    assert torch.isfinite(numbers).all()
    assert abs(numbers.mean().item()) < 0.02
    assert numbers.std().item() == pytest.approx(1, abs=0.02)
    assert (numbers.abs() < 1).float().mean().item() == pytest.approx(0.6827, abs=0.01)


# Pictures


def test_cpu_noise_is_torchs() -> None:
    assert PictureNoise([42], (1, 2, 4)).first().flatten().tolist() == pytest.approx(
        [0.336690, 0.128809, 0.234462, 0.230333, -1.122856, -0.186328, 2.208201, -0.637997], abs=1e-6
    )
    noise = PictureNoise([5], SHAPE)
    first, second, third = torch_noise(5, SHAPE, SHAPE, SHAPE)
    assert noise.first()[0].equal(first)
    assert noise(2.0, 1.0)[0].equal(second)
    assert noise(1.0, 0.5)[0].equal(third)


def test_gpu_noise_without_a_gpu_is_cpu_noise() -> None:
    assert PictureNoise([5], SHAPE, source="GPU").first().equal(PictureNoise([5], SHAPE).first())


@given(
    seeds=st.lists(st.integers(0, 2**63 - 1), min_size=2, max_size=4),
    source=st.sampled_from(SOURCES),
    strength=st.sampled_from([0.0, 0.3, 1.0]),
    resize=st.sampled_from([None, (4, 3), (9, 9)]),
    ensd=st.sampled_from([0, 31337, -5]),
)
@settings(max_examples=60, deadline=None)
def test_a_batch_is_its_singles(
    seeds: list[int], source: NoiseSource, strength: float, resize: tuple[int, int] | None, ensd: int
) -> None:
    def draws(some: list[int]) -> Tensor:
        noise = PictureNoise(
            some,
            SHAPE,
            source=source,
            variation_seeds=[seed // 2 + 1 for seed in some],
            variation_strength=strength,
            resize_from=resize,
            ensd=ensd,
        )
        return torch.stack([noise.first(), noise(9, 8), noise(8, 7)])

    assert draws(seeds).equal(torch.cat([draws([seed]) for seed in seeds], dim=1))


@pytest.mark.parametrize("source", SOURCES)
def test_a_batch_of_brownian_noise_is_its_singles(source: NoiseSource) -> None:
    def draws(some: list[int]) -> Tensor:
        noise = PictureNoise(some, SHAPE, source=source).brownian(0.03, 14.6)
        return torch.stack([noise(9.0, 5.0), noise(5.0, 1.0)])

    assert draws([1, 2, 3]).equal(torch.cat([draws([seed]) for seed in (1, 2, 3)], dim=1))


def test_noise_has_the_asked_precision() -> None:
    noise = PictureNoise([1], SHAPE, dtype=torch.float64)
    assert noise.first().dtype == noise(2, 1).dtype == noise.brownian(0.1, 10)(10, 1).dtype == torch.float64


def test_ensd_changes_everything_but_the_start() -> None:
    plain, shifted = PictureNoise([100], SHAPE), PictureNoise([100], SHAPE, ensd=31337)
    assert plain.first().equal(shifted.first())
    assert shifted(2, 1)[0].equal(torch_noise(100 + 31337, SHAPE)[0])
    assert not plain(2, 1).equal(shifted(2, 1))


# Variation


def test_variation_goes_from_seed_to_variation_seed() -> None:
    low, high = (n[0] for n in (torch_noise(1, SHAPE), torch_noise(2, SHAPE)))

    def varied(strength: float) -> Tensor:
        return PictureNoise([1], SHAPE, variation_seeds=[2], variation_strength=strength).first()[0]

    assert varied(0.0).equal(low)
    torch.testing.assert_close(varied(1.0), high)
    torch.testing.assert_close(varied(0.3), slerp(0.3, low, high))


def test_slerp_turns_each_column_by_its_angle() -> None:
    low, high = torch.randn(2, 4, 16, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mixed = slerp(0.25, low, high)
    unit_low, unit_high, unit = (t / t.norm(dim=1, keepdim=True) for t in (low, high, mixed))
    whole = torch.acos((unit_low * unit_high).sum(1))
    lengths = torch.stack([low.norm(dim=1), high.norm(dim=1)])
    # Where both columns are equally long, the angle is just the share; elsewhere the formula tilts towards the longer.
    same = slerp(0.25, unit_low, unit_high)
    torch.testing.assert_close(torch.acos((unit_low * same).sum(1)), 0.25 * whole)
    torch.testing.assert_close(same.norm(dim=1), torch.ones_like(whole))
    assert ((unit * unit_low).sum(1) > (unit * unit_high).sum(1)).float().mean() > 0.9
    assert (mixed.norm(dim=1) > 0.7 * lengths.amin(0)).all()


@given(strength=st.floats(0, 1), seed=st.integers(0, 1000), height=st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_slerp_always_gives_numbers(strength: float, seed: int, height: int) -> None:
    low, high = torch.randn(2, 4, height, 3, generator=torch.Generator().manual_seed(seed))
    for pair in ((low, high), (low, low), (low, -low), (low, low * 1.0001)):
        assert torch.isfinite(slerp(strength, *pair)).all()
    torch.testing.assert_close(slerp(strength, low, low), low)


def test_a_variation_needs_its_seeds() -> None:
    with pytest.raises(ValueError, match="variation seed"):
        PictureNoise([1, 2], SHAPE, variation_strength=0.5, variation_seeds=[3])


# Seed resize


@pytest.mark.parametrize(("small", "offset"), [((4, 3), (1, 1)), ((6, 3), (0, 1)), ((2, 5), (2, 0))])
def test_a_smaller_pictures_noise_lies_in_the_middle(small: tuple[int, int], offset: tuple[int, int]) -> None:
    noise = PictureNoise([9], SHAPE, resize_from=small).first()[0]
    inner, outer = torch_noise(9, (4, *small))[0], torch_noise(9, SHAPE)[0]
    y, x = offset
    assert noise[:, y : y + small[0], x : x + small[1]].equal(inner)
    noise[:, y : y + small[0], x : x + small[1]] = outer[:, y : y + small[0], x : x + small[1]]
    assert noise.equal(outer)


def test_of_a_larger_pictures_noise_the_middle_is_taken() -> None:
    noise = PictureNoise([9], SHAPE, resize_from=(10, 9)).first()[0]
    assert noise.equal(torch_noise(9, (4, 10, 9))[0][:, 2:8, 2:7])


def test_variation_noise_is_made_at_the_small_size() -> None:
    noise = PictureNoise([1], SHAPE, variation_seeds=[2], variation_strength=1.0, resize_from=(4, 3)).first()[0]
    torch.testing.assert_close(noise[:, 1:5, 1:4], torch_noise(2, (4, 4, 3))[0])


@given(h=st.integers(1, 12), w=st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_pasting_keeps_the_size_and_invents_nothing(h: int, w: int) -> None:
    small, large = torch.ones(2, h, w), torch.zeros(2, 7, 6)
    pasted = paste_centred(small, large)
    assert pasted.shape == large.shape
    assert large.sum() == 0
    rows, columns = (h if h <= 7 else 7 - (h - 7) % 2), (w if w <= 6 else 6 - (w - 6) % 2)
    assert pasted[0].sum() == rows * columns


# Brownian


@pytest.mark.parametrize("seed", [0, 1, 12345, 2**63 - 1])
def test_the_brownian_tree_is_torchsdes(seed: int) -> None:
    noise = PictureNoise([seed], SHAPE).brownian(0.029167, 14.614641)
    tree = torchsde.BrownianTree(0.029167, torch.zeros(SHAPE), 14.614641, entropy=seed)
    for sigma, sigma_next in pairwise([14.614641, 9.1, 8.7999, 8.79989, 3.2, 0.1, 0.029167]):
        expected = -tree(sigma_next, sigma) / math.sqrt(sigma - sigma_next)
        tolerance = 1e-5 / min(1.0, math.sqrt(sigma - sigma_next))  # torchsde adds up in float32
        torch.testing.assert_close(noise(sigma, sigma_next)[0], expected, rtol=tolerance, atol=tolerance)


def test_the_path_does_not_depend_on_where_it_is_looked_at() -> None:
    def tree() -> BrownianTree:
        return BrownianTree(0.0, 10.0, lambda seed: torch_noise(seed, SHAPE)[0], entropy=3)

    fresh = {t: tree().w(t) for t in (0.5, 2.0, 2.000001, 7.3, 10.0)}
    walked = tree()
    for t in (7.3, 0.5, 10.0, 2.000001, 2.0, 0.5):
        assert walked.w(t).equal(fresh[t])
    assert tree().w(0.0).eq(0).all()
    assert tree().w(-3.0).equal(tree().w(0.0))
    assert tree().w(11.0).equal(fresh[10.0])


def test_brownian_increments_add_up() -> None:
    noise = PictureNoise([4], SHAPE, dtype=torch.float64).brownian(0.1, 10.0)
    whole = noise(9.0, 1.0) * math.sqrt(8)
    parts = noise(9.0, 4.0) * math.sqrt(5) + noise(4.0, 1.0) * math.sqrt(3)
    torch.testing.assert_close(whole, parts)
    torch.testing.assert_close(noise(1.0, 9.0), -noise(9.0, 1.0))


def test_brownian_noise_has_unit_variance_and_adjoining_steps_are_independent() -> None:
    noise = PictureNoise([4], (4, 64, 64)).brownian(0.1, 10.0)
    a, b, c = noise(9.0, 5.0).flatten(), noise(5.0, 4.9).flatten(), noise(4.9, 0.2).flatten()
    for draw in (a, b, c):
        assert draw.std().item() == pytest.approx(1, abs=0.03)
        assert abs(draw.mean().item()) < 0.03
    assert abs(torch.corrcoef(torch.stack([a, b, c])).fill_diagonal_(0)).max() < 0.03


def test_brownian_noise_comes_from_the_chosen_source() -> None:
    cpu, nv = (PictureNoise([4], SHAPE, source=s).brownian(0.1, 10.0)(9.0, 5.0) for s in ("CPU", "NV"))
    assert not cpu.equal(nv)


def test_an_interval_without_length_has_no_noise() -> None:
    with pytest.raises(ValueError, match="no length"):
        PictureNoise([4], SHAPE).brownian(0.1, 10.0)(1.0, 1.0)


def test_more_steps_refine_the_same_picture(mixture: GaussianMixture, x_unit: Tensor) -> None:
    """What a Brownian tree is for: the noise of a long step is the sum of the noise of the short ones."""
    noise = PictureNoise([1, 2, 3], (4, 4, 4), dtype=torch.float64)
    results = [
        sample(
            "DPM++ 2M SDE",
            mixture,
            x_unit * 10,
            schedule("Karras", n, [0.1, 10.0])[:-1],
            noise=noise.brownian(0.1, 10.0),
        )
        for n in (10, 40, 160)
    ]
    assert (results[1] - results[2]).norm() < 0.5 * (results[0] - results[2]).norm()
