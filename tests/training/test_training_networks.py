"""The networks in training: the optimiser, threads, the VAE's first state, the vocabulary, noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lessons import disc

from training.model import TOKENS, Vocabulary, alphas_cumprod
from training.muon import Muon, orthogonalised, split
from training.parallel import Replicas
from training.progress import TimeBox, learning_rate
from training.unet import averaged, noised, spoiled
from training.vae import align, change_latents, encoded, match_signs, new_vae, normalise, psnr, to_tensor
from webui.prompt.tokenizer import BOS, EOS, ClipTokenizer
from webui.sampling import ModelDenoiser, sigma_table


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalised(torch.randn(2, 24, 60), steps=5))
    assert values.min() > 0.5
    assert values.max() < 1.4


def test_muon_finds_the_minimum_of_a_quadratic() -> None:
    torch.manual_seed(0)
    wanted, weight = torch.randn(8, 4, 3, 3), torch.zeros(8, 4, 3, 3, requires_grad=True)
    optimiser = Muon([weight], lr=0.1, weight_decay=0.0)
    for step in range(150):
        optimiser.param_groups[0]["lr"] = 0.1 * (1 - step / 150)
        ((weight - wanted) ** 2).sum().backward()
        optimiser.step()
        optimiser.zero_grad()
    assert (weight - wanted).abs().max() < 0.15


def test_vectors_and_named_weights_are_not_for_muon() -> None:
    named = [("a.weight", torch.zeros(2, 2)), ("a.bias", torch.zeros(2)), ("conv_in.weight", torch.zeros(2, 2))]
    hidden, other = split(named, ("conv_in",))
    assert len(hidden) == 1
    assert len(other) == 2


def test_threads_give_the_gradient_of_the_whole_batch() -> None:
    torch.manual_seed(0)
    module, data = torch.nn.Linear(3, 2), torch.randn(8, 3)
    module(data).pow(2).mean().backward()
    whole = module.weight.grad.clone()
    module.weight.grad = None

    def loss(network: torch.nn.Module, share: torch.Tensor) -> tuple[torch.Tensor, int]:
        return network(share).pow(2).mean(), len(share)

    replicas = Replicas(module, 2)
    assert replicas.backward(loss, data.chunk(2)) == [4, 4]
    assert torch.allclose(module.weight.grad, whole, atol=1e-6)
    with torch.no_grad():
        module.weight.fill_(1.0)
    assert (replicas.modules[1].weight == 1).all()


def test_the_learning_rate_rises_then_falls_to_its_floor() -> None:
    assert learning_rate(0.0, 0, 10) == pytest.approx(0.1)
    assert learning_rate(0.0, 50, 10) == pytest.approx(1.0)
    assert learning_rate(1.0, 50, 10) == pytest.approx(0.01)


def test_a_time_box_counts_earlier_runs_and_can_be_moved(tmp_path: Path) -> None:
    assert TimeBox(1, spent=30).share == pytest.approx(0.5, abs=0.05)
    until = tmp_path / "until"
    until.write_text("0")
    assert TimeBox(60, until=until).share == 1.0


def test_a_new_vae_already_restores_colours() -> None:
    vae = new_vae()
    flat = np.full((1, 64, 64, 3), (200, 90, 40), np.uint8)
    assert psnr(vae, flat).item() > 12
    assert psnr(vae, disc(64, (200, 40, 40))[None]).item() > 11


def test_latents_are_changed_without_changing_pictures() -> None:
    torch.manual_seed(1)
    vae = new_vae()
    pictures = np.stack([disc(64, (200, 40, 40)), disc(64, (30, 90, 200), 0.3)])
    before = psnr(vae, pictures)
    old = encoded(vae, pictures)
    matrix, shift = torch.eye(4) * 2 + 0.1, torch.tensor([1.0, -1.0, 0.5, 0.0])
    change_latents(vae, matrix, shift)
    wanted = torch.einsum("ij,njhw->nihw", matrix, old) + shift.view(1, 4, 1, 1)
    assert torch.allclose(encoded(vae, pictures), wanted, atol=0.1)  # autocast
    assert torch.allclose(psnr(vae, pictures), before, atol=0.1)


def test_latents_are_normalised_to_what_the_unet_expects() -> None:
    vae = new_vae()
    pictures = np.stack([disc(64, (200, 40, 40), x) for x in (0.3, 0.5, 0.7)])
    normalise(vae, pictures)
    latents = encoded(vae, pictures) * 0.18215
    assert latents.mean((0, 2, 3)).abs().max() < 0.05
    assert (latents.std((0, 2, 3)) - 1).abs().max() < 0.05


def test_a_vae_is_brought_into_the_latent_space_of_another() -> None:
    vae, teacher = new_vae(), new_vae()
    change_latents(teacher, torch.tensor([[2.0, 1, 0, 0], [0, 3, 0, 0], [1, 0, 1, 0], [0, 0, 0, 2]]), torch.ones(4))
    pictures = np.stack([disc(64, (200, 40, 40), x) for x in (0.3, 0.5, 0.7)])
    align(vae, teacher, pictures)
    assert torch.allclose(encoded(vae, pictures), encoded(teacher, pictures), atol=0.15)


def test_latents_that_say_the_opposite_are_turned_over_and_no_others() -> None:
    vae, teacher = new_vae(), new_vae()
    change_latents(vae, torch.diag(torch.tensor([2.0, -2, 2, -2])), torch.zeros(4))
    pictures = np.stack([disc(64, (200, 40, 40), x) for x in (0.3, 0.5, 0.7)])
    match_signs(vae, teacher, pictures)
    assert torch.allclose(encoded(vae, pictures), 2 * encoded(teacher, pictures), atol=0.15)


def test_pixels_become_numbers_from_minus_one_to_one() -> None:
    pixels = to_tensor(np.array([0, 255], np.uint8).repeat(3).reshape(1, 1, 2, 3))
    assert pixels.shape == (1, 3, 1, 2)
    assert pixels[0, :, 0].tolist() == [[-1, 1]] * 3


def test_a_vocabulary_numbers_the_tokens_it_met_and_no_others() -> None:
    clip = ClipTokenizer()
    vocabulary = Vocabulary.of(["a cat", "a red boat"])
    rows = vocabulary.rows(["a cat", "a zebra"])
    assert rows.shape == (2, TOKENS)
    back = np.concatenate(([-1], vocabulary.tokens))[rows]
    assert back[0, :4].tolist() == [BOS, *clip.encode("a cat"), EOS]
    assert back[1, 2] == -1
    assert (rows[0, 3:] == vocabulary.end).all()


def test_unknown_words_are_put_between_the_others() -> None:
    vocabulary = Vocabulary.of(["a cat on the grass"])
    rows = torch.from_numpy(vocabulary.rows(["a cat on the grass"] * 300))
    whole = rows[0].clone()
    rows = spoiled(rows, vocabulary, torch.Generator().manual_seed(0))
    empty = torch.from_numpy(vocabulary.rows([""])[0])
    kept = [row for row in rows if not torch.equal(row, empty)]
    assert 15 < len(rows) - len(kept) < 50
    for row in kept:
        assert torch.equal(row[row != 0][:6], whole[:6])
    assert {int((row == 0).sum()) for row in kept} == {0, 1, 2, 3}


def test_a_full_caption_takes_no_more_words_and_keeps_its_end() -> None:
    vocabulary = Vocabulary.of(["cat"])
    rows = torch.from_numpy(vocabulary.rows(["cat " * 90] * 200))
    kept = spoiled(rows, vocabulary, torch.Generator().manual_seed(0))
    assert (kept[:, -1] == vocabulary.end).all()
    assert (kept != 0).all()


def test_losses_are_averaged_for_each_tenth_of_the_noise_levels() -> None:
    nothing = torch.full((10,), torch.nan)
    first = averaged(nothing, torch.tensor([5, 15, 999]), torch.tensor([1.0, 3.0, 8.0]))
    assert first[0] == 2
    assert first[9] == 8
    assert first[1:9].isnan().all()
    second = averaged(first, torch.tensor([50]), torch.tensor([12.0]))
    assert second[0].item() == pytest.approx(2 + 0.03 * 10)
    assert second[9] == 8


def test_noise_and_target_are_those_that_the_samplers_undo() -> None:
    torch.manual_seed(0)
    latents = torch.randn(4, 4, 2, 2)
    noisy, timesteps, target = noised(latents, alphas_cumprod())
    sigmas = sigma_table()
    sigma = sigmas[timesteps].to(torch.float32)
    x = noisy * (sigma**2 + 1).sqrt().view(-1, 1, 1, 1)
    answer = ModelDenoiser(lambda _x, _t: target, sigmas, "v")(x, sigma)
    assert torch.allclose(answer, latents, atol=1e-3)
