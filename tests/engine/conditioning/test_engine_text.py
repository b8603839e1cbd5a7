"""Prompts to conditioning, against transformers and by hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from engine_runs import run

from webui.engine import Engine
from webui.engine.checkpoints.loaded import LoadedCheckpoint
from webui.engine.conditioning.text import ChunkCache, Conditioning, PromptEncoder, Schedule, emphasised
from webui.engine.memory.residency import Residency
from webui.prompt import chunk_text, clip_tokenizer, parse_prompt
from webui.settings import MemoryMode

CPU = torch.device("cpu")


@pytest.fixture
def checkpoint(engine: Engine) -> LoadedCheckpoint:
    list(engine.load())
    return next(iter(engine._tools.store._checkpoints.values()))


@pytest.fixture
def encoder(checkpoint: LoadedCheckpoint) -> Iterator[PromptEncoder]:
    with torch.inference_mode():
        residency = Residency(CPU, MemoryMode.normal)
        yield PromptEncoder(checkpoint.text_encoders, "model", ChunkCache(), CPU, residency)


def condition(
    encoder: PromptEncoder,
    prompt: str,
    negative: str = "",
    *,
    steps: int = 10,
    clip_skip: int = 1,
    emphasis: str = "Original",
    pad_conds: bool = False,
) -> Conditioning:
    tokenizer = clip_tokenizer()
    plan = parse_prompt(prompt, negative, steps=steps, emphasis=emphasis, tokenizer=tokenizer)
    return encoder.condition(
        plan,
        lambda text: chunk_text(text, tokenizer, emphasis=emphasis),
        clip_skip=clip_skip,
        emphasis=emphasis,
        pad_conds=pad_conds,
    )


def plain(checkpoint: LoadedCheckpoint, text: str) -> torch.Tensor:
    """transformers' own output for a text of one chunk."""
    chunk = chunk_text(text, clip_tokenizer(), emphasis="None")[0]
    with torch.inference_mode():
        return checkpoint.text_encoder(input_ids=torch.tensor([chunk.ids])).last_hidden_state[0]


def test_a_plain_prompt_is_what_transformers_makes_of_it(encoder: PromptEncoder, checkpoint: LoadedCheckpoint) -> None:
    prompts, uncond = condition(encoder, "a red apple", "green").at(0, with_uncond=True)
    assert torch.equal(prompts, plain(checkpoint, "a red apple")[None])
    assert uncond is not None
    assert torch.equal(uncond, plain(checkpoint, "green"))
    assert condition(encoder, "a").at(0, with_uncond=False)[1] is None


def test_clip_skip_takes_an_earlier_layer_through_the_final_norm(
    encoder: PromptEncoder, checkpoint: LoadedCheckpoint
) -> None:
    model = checkpoint.text_encoder
    ids = torch.tensor([chunk_text("a red apple", clip_tokenizer())[0].ids])
    with torch.inference_mode():
        layers = model(input_ids=ids, output_hidden_states=True).hidden_states
        for skip in (1, 2, 3):
            got = condition(encoder, "a red apple", clip_skip=skip).at(0, False)[0]
            torch.testing.assert_close(got[0], model.final_layer_norm(layers[-skip])[0], rtol=1e-5, atol=1e-5)
    most = condition(encoder, "a red apple", clip_skip=3).at(0, False)[0]
    assert torch.equal(condition(encoder, "a red apple", clip_skip=12).at(0, False)[0], most)


def test_emphasis_weighs_tokens_and_original_keeps_the_mean() -> None:
    z = torch.randn(2, 77, 8, generator=torch.Generator().manual_seed(0)) + 0.5
    weights = torch.ones(2, 77)
    weights[0, 3], weights[1, 5] = 1.5, 0.0
    bare = emphasised(z, weights, "No norm")
    torch.testing.assert_close(bare[0, 3], z[0, 3] * 1.5)
    assert bare[1, 5].abs().max() == 0
    assert torch.equal(bare[0, 4], z[0, 4])
    original = emphasised(z, weights, "Original")
    torch.testing.assert_close(original.mean(), z.mean())  # over both texts together
    torch.testing.assert_close(original, bare * (z.mean() / bare.mean()))
    for mode in ("Ignore", "None"):
        assert torch.equal(emphasised(z, weights, mode), z)


@pytest.mark.parametrize(("emphasis", "same_as"), [("None", "(a:1.5) apple"), ("Ignore", "a apple")])
def test_modes_without_emphasis_read_brackets_as_text_or_drop_them(
    encoder: PromptEncoder, checkpoint: LoadedCheckpoint, emphasis: str, same_as: str
) -> None:
    got = condition(encoder, "(a:1.5) apple", emphasis=emphasis).at(0, False)[0]
    assert torch.equal(got[0], plain(checkpoint, same_as))


def test_a_scheduled_text_lasts_up_to_and_including_its_call(
    encoder: PromptEncoder, checkpoint: LoadedCheckpoint
) -> None:
    found = condition(encoder, "[apple:pear:3]")
    apple, pear = plain(checkpoint, "apple"), plain(checkpoint, "pear")
    for call in range(10):
        assert torch.equal(found.at(call, False)[0][0], apple if call <= 3 else pear), call


def test_all_texts_of_a_schedule_get_the_chunks_of_the_longest(encoder: PromptEncoder) -> None:
    found = condition(encoder, "[a:" + "pear " * 80 + ":5]")
    assert found.at(0, False)[0].shape == found.at(9, False)[0].shape == (1, 154, 128)


def test_break_starts_a_new_chunk(encoder: PromptEncoder, checkpoint: LoadedCheckpoint) -> None:
    prompts, _ = condition(encoder, "a red apple BREAK a blue cat").at(0, False)
    assert torch.equal(prompts[0], torch.cat((plain(checkpoint, "a red apple"), plain(checkpoint, "a blue cat"))))


def test_parts_have_their_weights_and_the_shorter_repeats_its_last_token(
    encoder: PromptEncoder, checkpoint: LoadedCheckpoint
) -> None:
    found = condition(encoder, "a red apple BREAK green :0.8 AND a cat :0.3")
    assert found.weights == (0.8, 0.3)
    prompts, _ = found.at(0, False)
    assert prompts.shape == (2, 154, 128)
    assert torch.equal(prompts[1, :77], plain(checkpoint, " a cat"))
    assert torch.equal(prompts[1, 77:], prompts[1, 76:77].expand(77, -1))


def test_different_lengths_stay_apart_unless_padding_is_asked_for(
    encoder: PromptEncoder, checkpoint: LoadedCheckpoint
) -> None:
    prompts, uncond = condition(encoder, "a BREAK b", "c").at(0, True)
    assert uncond is not None
    assert (prompts.shape[1], uncond.shape[0]) == (154, 77)
    prompts, uncond = condition(encoder, "a BREAK b", "c", pad_conds=True).at(0, True)
    assert uncond is not None
    assert torch.equal(uncond, torch.cat((plain(checkpoint, "c"), plain(checkpoint, ""))))
    prompts, uncond = condition(encoder, "a", "b BREAK c", pad_conds=True).at(0, True)
    assert torch.equal(prompts[0], torch.cat((plain(checkpoint, "a"), plain(checkpoint, ""))))


def test_chunks_are_encoded_once_and_the_cache_is_bounded(checkpoint: LoadedCheckpoint) -> None:
    cache = ChunkCache(limit=5 * 77 * 128 * 4)
    encoder = PromptEncoder(checkpoint.text_encoders, "model", cache, CPU, Residency(CPU, MemoryMode.normal))
    made = 0

    def make() -> torch.Tensor:
        nonlocal made
        made += 1
        return torch.zeros(77, 128)

    assert cache.get("x", make) is cache.get("x", make)
    assert made == 1
    with torch.inference_mode():
        for i in range(20):
            condition(encoder, f"picture number {i}")
    assert cache.bytes <= 5 * 77 * 128 * 4
    cache.get("x", make)
    assert made == 2


def test_schedules_know_what_to_do_after_their_end() -> None:
    first, last = torch.zeros(1), torch.ones(1)
    schedule = Schedule(((3, first), (10, last)))
    assert schedule.at(3) is first
    assert schedule.at(4) is schedule.at(99) is last


@pytest.mark.parametrize(
    "prompt",
    ["a red apple AND a green leaf :0.5", "[red:blue:2] apple", "a red apple BREAK " + "word " * 80],
)
def test_the_language_reaches_the_picture(engine: Engine, prompt: str) -> None:
    done = run(engine, prompt=prompt, negative_prompt="blue", batch_size=2, width=64, height=64)
    assert len(set(done.digests)) == 2
    assert run(engine, prompt=prompt, negative_prompt="blue", seed=8, width=64, height=64).digests == done.digests[1:]
    assert done.digests != run(engine, prompt="a", negative_prompt="blue", batch_size=2, width=64, height=64).digests
