"""What training writes is what the product reads: exported files, adapters, and a model of one's own pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from lessons import disc
from PIL import Image
from safetensors.torch import save_file

from training import own
from training.adapters import BLOCK, Delta, Denoiser, blockiness, kohya_tensors, lora_layers, pixelated
from training.export import fit_preview, write_checkpoint, write_vae
from training.generate import Studio, sheet
from training.model import Vocabulary, known_tokens, open_checkpoint
from training.progress import TimeBox
from training.unet import Trainer, draw_sheet, run
from training.vae import new_vae, normalise, psnr
from webui.catalog.detect import detect
from webui.catalog.header import read_header
from webui.catalog.sidecar import read_metadata, read_yaml
from webui.engine.networks.layer_names import layer_places

WORDS = ["a red disc", "a blue disc"]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that was stopped after a step or two, and what it wrote."""
    folder = tmp_path_factory.mktemp("work")
    images = np.stack([disc(64, (210, 40, 40)), disc(64, (40, 60, 210), 0.4)])
    np.save(folder / "images.npy", images)
    vocabulary = Vocabulary.of(WORDS)
    trainer = Trainer(vocabulary, 1e-3, threads=1)
    latents, rows = torch.randn(2, 4, 8, 8), torch.from_numpy(vocabulary.rows(WORDS))

    def one_step(size: int, share: float, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        (folder / "until").write_text("0")
        return latents, rows.clone()

    vae = new_vae()
    normalise(vae, images)

    def show() -> None:
        draw_sheet(trainer, vae, WORDS, folder / "samples", side=64)

    run(trainer, one_step, TimeBox(1, until=folder / "until"), 2, folder / "unet.pt", show)
    write_checkpoint(folder, folder / "little.safetensors", vae, 64)
    write_vae(vae, folder / "little-vae.safetensors", 64)
    return folder


def test_a_training_goes_on_where_it_stopped(work: Path) -> None:
    state = torch.load(work / "unet.pt", weights_only=True)
    trainer = Trainer(Vocabulary(state["tokens"]), 1e-3, threads=1)
    trainer.resume(state)
    assert trainer.step == state["step"] > 0
    assert all(map(torch.equal, trainer.masters, state["masters"]))
    with pytest.raises(ValueError, match="captions have changed"):
        Trainer(Vocabulary.of(["something else"]), 1e-3, threads=1).resume(state)


def test_the_sheet_of_a_training_shows_what_its_exported_file_draws(work: Path) -> None:
    step = torch.load(work / "unet.pt", weights_only=True)["step"]
    with Image.open(work / "samples" / f"{step:06d}.png") as file:
        shown = np.asarray(file.convert("RGB"))[:64, 3:67]
    drawn = Studio.open(work / "little.safetensors").draw(WORDS, side=64)[0]
    assert np.abs(shown.astype(int) - drawn).mean() < 4  # the file's tokens are float8
    assert drawn.std() > 4


def test_an_exported_checkpoint_is_found_to_be_what_it_is(work: Path) -> None:
    header = read_header(work / "little.safetensors")
    yaml = read_yaml((work / "little.yaml").read_bytes())
    found = detect(header, yaml)
    assert (found.kind, found.family.value, found.prediction) == ("checkpoint", "SD1", "v")
    assert (
        header.tensors["cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"].dtype == "F8_E4M3"
    )
    said = read_metadata(header.metadata)
    assert said is not None
    assert said.native_size == 64
    assert said.latent_rgb_factors is not None
    assert len(said.latent_rgb_factors) == 4
    assert yaml.vae is not None
    assert yaml.vae.norm_num_groups is None  # 32, as everywhere


def test_the_engine_reads_the_weights_that_were_trained(work: Path) -> None:
    state = torch.load(work / "unet.pt", weights_only=True)
    trained = dict(zip(state["names"], state["ema"], strict=True))
    opened = open_checkpoint(work / "little.safetensors")
    for name, value in opened.unet.state_dict().items():
        assert torch.allclose(value, trained[f"unet.{name}"], atol=1e-3), name
    table = opened.text.state_dict()["embeddings.token_embedding.weight"]
    learned = trained["text.embeddings.token_embedding.weight"]
    tokens = torch.tensor(state["tokens"])
    assert (table[tokens] - learned[1:]).abs().max() < 0.07  # float8
    assert known_tokens(opened) == state["tokens"]


def test_the_preview_matrix_gives_the_colours_of_the_picture(work: Path) -> None:
    vae = new_vae()
    images = np.load(work / "images.npy")
    normalise(vae, images)
    preview = fit_preview(vae, images)
    white = np.full((1, 64, 64, 3), 255, np.uint8)
    latents = vae.encode(torch.ones(1, 3, 64, 64)).latent_dist.mean * 0.18215
    rgb = latents.movedim(1, -1) @ torch.tensor(preview.factors) + torch.tensor(preview.bias)
    assert white.mean() / 127.5 - 1 - rgb.mean().item() < 0.25


def test_a_vae_alone_is_a_vae(work: Path) -> None:
    header = read_header(work / "little-vae.safetensors")
    assert detect(header).kind == "vae"
    assert json.loads(header.metadata["vae_config"])["norm_num_groups"] == 32


def test_many_prompts_are_drawn_at_once_each_from_its_seed(work: Path) -> None:
    studio = Studio.open(work / "little.safetensors", torch.float32)
    pictures = studio.draw([*WORDS, WORDS[0]], [1, 2, 1], side=64, steps=2)
    assert pictures.shape == (3, 64, 64, 3)
    assert np.abs(pictures[0].astype(int) - pictures[2]).max() <= 2
    assert sheet(pictures, [*WORDS, WORDS[0]], columns=2).size == (140, 180)


def test_a_lora_of_ours_fits_every_layer_of_the_engine(work: Path) -> None:
    model = Denoiser(Studio.open(work / "little.safetensors"))
    layers = lora_layers(model)
    torch.manual_seed(0)
    for layer in layers.values():
        torch.nn.utils.parametrize.register_parametrization(layer, "weight", Delta(layer.weight, 4), unsafe=True)
    save_file(kohya_tensors(layers), work / "style.safetensors", {"ss_base_model_version": "sd_v1"})
    header = read_header(work / "style.safetensors")
    assert detect(header).kind == "lora"
    opened = open_checkpoint(work / "little.safetensors")
    places = layer_places({"unet": opened.unet, "te1": opened.text})
    stems = {name.split(".")[0] for name in header.tensors}
    assert len(stems) == len(layers) > 60
    assert stems <= set(places)


def test_a_new_lora_changes_nothing(work: Path) -> None:
    layer = torch.nn.Conv2d(4, 6, 3)
    before = layer.weight.detach().clone()
    torch.nn.utils.parametrize.register_parametrization(layer, "weight", Delta(layer.weight, 4), unsafe=True)
    assert torch.equal(layer.weight, before)


def test_pixel_art_has_its_edges_on_the_grid() -> None:
    picture = disc(64, (200, 60, 40))
    assert blockiness(pixelated(picture)[None]) == 1.0
    assert blockiness(picture[None]) < 2 / BLOCK + 0.1


def test_captions_come_from_the_text_beside_a_picture_or_from_its_name(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("a  green\n dragon ")
    assert own.caption_of(tmp_path / "b.png") == "a green dragon"
    assert own.caption_of(tmp_path / "red_dragon-2.png") == "red dragon"
    assert own.caption_of(tmp_path / "7.png") == "7"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_caption_is_read_in_each_encoding_that_editors_write(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "b.txt").write_bytes("ein grüner Drache\r\n".encode(encoding))
    assert own.caption_of(tmp_path / "b.png") == "ein grüner Drache"


def test_what_cannot_be_read_is_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b", "c"):
        Image.fromarray(disc(80, (200, 40, 40))).save(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:200])
    (tmp_path / "c.txt").write_bytes("grün".encode("cp1252"))
    (tmp_path / "._a.png").write_bytes(b"\0\5\x16\7")
    ramp = np.tile(np.arange(0, 65536, 257, dtype=np.uint16), (64, 1))
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    found = list(own.read_pictures(tmp_path))
    assert [caption for _, caption in found] == ["a", "ramp"]
    assert np.asarray(found[1][0])[0, :, 0].tolist() == list(range(256)), "16 bits a pixel"
    told = capsys.readouterr().out
    assert "b.png is left out" in told
    assert "c.txt is not UTF-8" in told
    assert "._a" not in told


def test_a_folder_without_pictures_and_a_name_that_is_taken_are_refused_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*options: str) -> str:
        with pytest.raises(SystemExit):
            own.parse(["--name", "mine", "--out", str(tmp_path), *options])
        return capsys.readouterr().err

    folder = ("--pictures", str(tmp_path))
    assert "there is no folder" in told("--pictures", str(tmp_path / "nothing"))
    assert "there are no pictures" in told(*folder)
    Image.fromarray(disc(80, (200, 40, 40))).save(tmp_path / "a.png")
    (tmp_path / "mine.safetensors").write_bytes(b"a model that took a night")
    assert "--again" in told(*folder)
    assert own.parse(["--name", "mine", "--out", str(tmp_path), *folder, "--again"]).again
    assert "choose another --name" in told(*folder, "--out", str(own.MODELS), "--name", own.EMBEDDED.stem, "--again")


def test_ctrl_c_ends_a_training_and_what_there_is_of_the_model_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(disc(80, (200, 40, 40))).save(tmp_path / "IMG_1234.png")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    written: list[str] = []

    def write(work: Path, out: Path, *_: object) -> None:
        written.append(f"{out.name} at step {torch.load(work / 'unet.pt', weights_only=True)['step']}")

    monkeypatch.setattr(own, "run", interrupted)
    monkeypatch.setattr(own, "write_checkpoint", write)
    command = ["--pictures", str(tmp_path), "--name", "mine", "--out", str(tmp_path), "--side", "64", "--threads", "1"]
    own.main(command)
    assert written == ["mine.safetensors at step 0"]
    assert "1 of them have no words of their own" in capsys.readouterr().out


def test_a_model_of_ones_own_pictures_in_one_command(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number, colour in enumerate(((200, 40, 40), (40, 200, 60))):
        Image.fromarray(disc(80, colour)).save(pictures / f"blob_{number}.png")
    command = ["--pictures", str(pictures), "--name", "mine", "--minutes", "0.01", "--out", str(tmp_path)]
    own.main([*command, "--side", "64", "--batch", "2", "--threads", "1"])
    found = detect(read_header(tmp_path / "mine.safetensors"), read_yaml((tmp_path / "mine.yaml").read_bytes()))
    assert (found.kind, found.prediction) == ("checkpoint", "v")
    opened = open_checkpoint(tmp_path / "mine.safetensors")
    assert psnr(opened.vae, disc(64, (200, 40, 40))[None]).item() > 15
    assert set(known_tokens(open_checkpoint(own.EMBEDDED))) < set(known_tokens(opened)) | {0}
