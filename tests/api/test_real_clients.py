"""What clients really do, against the real server with the real model: the PyPI package webuiapi with everything it
has, requests as AUTOMATIC1111's own tests send them, our own client, and OpenAI's route. The server has accounts, so
each shows who it is: webuiapi by HTTP Basic, as it does, the others by a token or a password.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import io
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import webuiapi
from embedded import link_or_copy
from PIL import Image, ImageDraw
from running_server import REPO_ROOT, RunningServer

from webui import pictures
from webui.accounts import Accounts
from webui.client import Client, Unreachable
from webui.errors import InvalidParams, NotFound

PASSWORD = "correct: horse battery"
SMALL: dict[str, Any] = {"steps": 2, "width": 64, "height": 64, "seed": 5}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("clients") / "data"
    (folder / "models" / "ESRGAN").mkdir(parents=True)
    for network in (REPO_ROOT / "models" / "ESRGAN").glob("*.safetensors"):
        link_or_copy(network, folder / "models" / "ESRGAN" / network.name)
    (folder / "styles.csv").write_text('name,prompt,negative_prompt\nink,"{prompt}, ink",photo\n')
    accounts = Accounts(folder / "users.json")
    accounts.add("root", PASSWORD, admin=True)
    accounts.add("ann", PASSWORD)
    with RunningServer(folder, headers={"authorization": f"Bearer {accounts.new_token('root')}"}) as running:
        running.wait_until_ready(worker=True)
        yield running


@pytest.fixture(scope="module")
def api(server: RunningServer) -> webuiapi.WebUIApi:
    return webuiapi.WebUIApi(host="127.0.0.1", port=server.port, steps=2, username="root", password=PASSWORD)


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Client:
    return Client(server.url, user="root", password=PASSWORD)


def apple(size: tuple[int, int] = (64, 64)) -> Image.Image:
    picture = Image.new("RGB", size, "white")
    ImageDraw.Draw(picture).ellipse((8, 8, size[0] - 8, size[1] - 8), "red")
    return picture


def mask(size: tuple[int, int] = (64, 64)) -> Image.Image:
    picture = Image.new("L", size, 0)
    ImageDraw.Draw(picture).rectangle((0, 0, size[0] // 2, size[1]), 255)
    return picture


# --- webuiapi ---------------------------------------------------------------------------------------------------------


def test_webuiapi_makes_pictures_and_reads_what_made_them(api: webuiapi.WebUIApi) -> None:
    made = api.txt2img(
        prompt="a red apple",
        negative_prompt="green",
        seed=7,
        cfg_scale=6,
        n_iter=2,
        width=64,
        height=64,
        styles=["ink"],
    )
    assert [image.size for image in made.images] == [(64, 64)] * 2
    assert made.info["all_seeds"] == [7, 8]
    assert made.info["prompt"] == "a red apple, ink"
    assert made.info["sampler_name"] == "Euler a"
    assert made.parameters["scheduler"] == "automatic"
    read = api.png_info(made.image)
    assert read.info.startswith("a red apple, ink\nNegative prompt: green, photo\nSteps: 2")
    assert read.parameters["Seed"] == "7"
    again = api.txt2img(
        prompt="a red apple", negative_prompt="green", seed=7, cfg_scale=6, width=64, height=64, styles=["ink"]
    )
    assert again.image.tobytes() == made.image.tobytes()


def test_webuiapi_adds_a_second_pass(api: webuiapi.WebUIApi) -> None:
    made = api.txt2img(
        prompt="a red apple", seed=7, width=64, height=64, enable_hr=True, hr_scale=2, denoising_strength=0.5,
        hr_upscaler=webuiapi.HiResUpscaler.Latent, hr_second_pass_steps=2,
    )  # fmt: skip
    assert made.image.size == (128, 128)


def test_webuiapi_starts_from_a_picture_and_keeps_what_the_mask_does_not_cover(api: webuiapi.WebUIApi) -> None:
    made = api.img2img(images=[apple()], prompt="a green apple", seed=7, width=64, height=64, denoising_strength=0.6)
    assert made.image.size == (64, 64)
    inpainted = api.img2img(
        images=[apple()], mask_image=mask(), mask_blur=0, inpainting_fill=1, inpaint_full_res=False,
        prompt="a green apple", seed=7, width=64, height=64, denoising_strength=0.9,
    )  # fmt: skip
    kept = (40, 0, 64, 64)
    assert inpainted.image.convert("RGB").crop(kept).tobytes() == apple().crop(kept).tobytes()
    drawn = (0, 0, 24, 64)
    assert inpainted.image.convert("RGB").crop(drawn).tobytes() != apple().crop(drawn).tobytes()


def test_webuiapi_enlarges_pictures(api: webuiapi.WebUIApi) -> None:
    one = api.extra_single_image(image=apple((32, 16)), upscaler_1="Lanczos", upscaling_resize=2)
    assert one.image.size == (64, 32)
    to_size = api.extra_single_image(
        image=apple((32, 32)), resize_mode=1, upscaling_resize_w=48, upscaling_resize_h=24, upscaler_1="Nearest"
    )
    assert to_size.image.size == (48, 24)
    network = next(one["name"] for one in api.get_upscalers() if one["model_name"])
    drawn = api.extra_single_image(image=apple((16, 16)), upscaler_1=network, upscaling_resize=4)
    assert drawn.image.size == (64, 64)
    many = api.extra_batch_images(images=[apple((16, 16)), apple((32, 16))], upscaler_1="Lanczos", upscaling_resize=2)
    assert [image.size for image in many.images] == [(32, 32), (64, 32)]


def test_webuiapi_reads_every_list(api: webuiapi.WebUIApi) -> None:
    assert "Euler a" in api.util_get_sampler_names()
    assert "karras" in api.util_get_scheduler_names()
    assert any(name.startswith("emoji") for name in api.util_get_model_names())
    assert {"name": "Latent"} in api.get_latent_upscale_modes()
    assert {"None", "Lanczos", "Nearest"} <= {one["name"] for one in api.get_upscalers()}
    assert api.get_prompt_styles()[0]["name"] == "ink"
    assert api.get_memory()["ram"]["total"] > 0
    assert set(api.get_embeddings()) == {"loaded", "skipped"}
    assert set(api.get_scripts()) == {"txt2img", "img2img"}
    assert isinstance(api.get_cmd_flags(), dict)
    for listed in (
        api.get_samplers, api.get_schedulers, api.get_sd_vae, api.get_loras, api.get_sd_models, api.get_hypernetworks,
        api.get_face_restorers, api.get_realesrgan_models, api.get_artists, api.get_artist_categories,
    ):  # fmt: skip
        assert isinstance(listed(), list), listed
    assert api.refresh_checkpoints() is None
    assert isinstance(api.controlnet_version(), int)
    assert api.controlnet_model_list() == []
    assert api.controlnet_module_list() == ["none"]
    assert api.controlnet_detect([apple()]).image.size == (64, 64)
    with pytest.raises(RuntimeError, match=r"404.*Model not found"):
        api.interrogate(apple())


def test_webuiapis_methods_for_extensions_that_are_not_here_are_answered(api: webuiapi.WebUIApi) -> None:
    assert api.list_prompt_gen_models() == []
    assert webuiapi.ModelKeywordInterface(api).get_keywords().model
    assert webuiapi.ControlNetInterface(api, show_deprecation_warning=False).model_list() == []
    tagger = webuiapi.TaggerInterface(api)
    assert tagger.tagger_interrogators() == {"models": []}
    objects = webuiapi.SegmentAnythingInterface(api)
    assert "not found in pictures here" in objects.heartbeat()["msg"]
    assert objects.get_sam_models() == []
    predicted = objects.sam_predict(apple())
    assert (predicted.masks, predicted.message) == ([], objects.heartbeat()["msg"])

    def with_script(
        **script: Any,
    ) -> Any:  # the default dictionary of the client keeps what was put in
        return api.txt2img(prompt="x", width=64, height=64, alwayson_scripts={}, **script)

    for refused in (
        lambda: api.prompt_gen(text="a cat"),
        lambda: tagger.tagger_interrogate(apple()),
        lambda: webuiapi.InstructPix2PixInterface(api).img2img([apple()], "make it green"),
        lambda: webuiapi.RemBGInterface(api).rembg(apple()),
        lambda: webuiapi.ControlNetInterface(api, show_deprecation_warning=False).txt2img("a cat"),
        lambda: webuiapi.ControlNetInterface(api, show_deprecation_warning=False).img2img([apple()]),
        lambda: with_script(controlnet_units=[webuiapi.ControlNetUnit(apple(), model="canny")]),
        lambda: with_script(adetailer=[webuiapi.ADetailer("face_yolov8n.pt")]),
        lambda: with_script(roop=webuiapi.Roop(apple())),
        lambda: with_script(reactor=webuiapi.ReActor(apple())),
        lambda: with_script(sag=webuiapi.Sag()),
        lambda: api.custom_post("train/embedding", {"embedding_name": "x"}, baseurl=True),
        lambda: api.custom_post("create/hypernetwork", {"name": "x"}, baseurl=True),
    ):
        with pytest.raises(RuntimeError) as told:
            refused()
        status, text = told.value.args
        error = json.loads(text)
        assert status == 422
        assert set(error) >= {"error", "detail", "errors", "body", "message", "advice"}
        assert error["advice"], error
    made = with_script(
        adetailer=[webuiapi.ADetailer()],
        roop=webuiapi.Roop(apple(), enable=False),
        reactor=webuiapi.ReActor(apple(), enable=False),
        sag=webuiapi.Sag(enable=False),
    )
    assert made.image.size == (64, 64), "what is switched off does not stand in the way"


def test_webuiapi_signs_in_with_http_basic_and_has_the_rights_of_that_user(server: RunningServer) -> None:
    import requests

    def of(name: str, password: str) -> webuiapi.WebUIApi:
        return webuiapi.WebUIApi(host="127.0.0.1", port=server.port, steps=2, username=name, password=password)

    address = f"{server.url}/sdapi/v1/options"
    for wrong in (None, ("root", "wrong")):
        answer = requests.get(address, auth=wrong, timeout=60)
        assert (answer.status_code, answer.json()["detail"]) == (401, "Incorrect username or password")
        assert answer.headers["www-authenticate"].startswith("Basic ")
    ann = of("ann", PASSWORD)
    assert ann.txt2img(prompt="ann's own", width=64, height=64).image.size == (64, 64)
    answer = requests.post(address, json={"send_seed": False}, auth=("ann", PASSWORD), timeout=60)
    assert (answer.status_code, answer.json()["error"]) == (403, "Forbidden")
    jobs = requests.get(f"{server.url}/jobs", auth=("ann", PASSWORD), timeout=60).json()["jobs"]
    assert [job["user"] for job in jobs] == ["ann"]


def test_webuiapi_sets_options_and_switches_models(api: webuiapi.WebUIApi, capsys: pytest.CaptureFixture[str]) -> None:
    api.set_options({"send_seed": False, "CLIP_stop_at_last_layers": 2})
    assert api.get_options()["send_seed"] is False
    assert api.txt2img(prompt="x", width=64, height=64).info["clip_skip"] == 2
    api.set_options({"send_seed": True, "CLIP_stop_at_last_layers": 1})
    title = api.util_get_model_names()[0]
    api.util_set_model(title.upper()[:12])
    assert api.util_get_current_model() == title
    assert "model changed" in capsys.readouterr().out


def test_webuiapi_watches_and_ends_a_job(api: webuiapi.WebUIApi) -> None:
    api.util_wait_for_ready(check_interval=0.05)
    assert api.get_progress()["progress"] == 0.0
    found: list[Any] = []
    thread = threading.Thread(
        target=lambda: found.append(api.txt2img(prompt="x", steps=900, width=128, height=128, n_iter=20))
    )
    thread.start()
    deadline = time.monotonic() + 120
    while api.get_progress()["state"]["sampling_step"] == 0:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    running = api.get_progress()
    assert 0 < running["progress"] < 1
    assert running["state"]["job_count"] == 20
    assert api.skip() is None
    assert api.interrupt() == {}
    thread.join(120)
    assert len(found[0].images) < 20
    api.util_wait_for_ready(check_interval=0.05)


def test_webuiapi_is_told_why_something_cannot_be(api: webuiapi.WebUIApi) -> None:
    with pytest.raises(RuntimeError, match=r"422.*Did you mean.*Euler a"):
        api.txt2img(prompt="x", sampler_name="Eulr a")
    with pytest.raises(RuntimeError, match=r"422.*not found"):
        api.txt2img(prompt="x", script_name="ultimate sd upscale", script_args=[])


# --- as AUTOMATIC1111's own tests -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"negative_prompt": "example negative prompt"},
        {"prompt": "((emphasis)), (emphasis1:1.1), [to:1], [from::2], [from:to:0.3], [alt|alt1]"},
        {"height": 128},
        {"enable_hr": True},
        {"tiling": True},
        {"restore_faces": True},
        {"sampler_index": "PLMS"},
        {"sampler_index": "DDIM"},
        {"sampler_index": "UniPC"},
        {"n_iter": 2},
        {"batch_size": 2},
    ],
    ids=str,
)
def test_txt2img_as_that_programs_tests_send_it(server: RunningServer, fields: dict[str, Any]) -> None:
    body = {
        "enable_hr": False, "denoising_strength": 0, "firstphase_width": 0, "firstphase_height": 0,
        "prompt": "example prompt", "styles": [], "seed": -1, "subseed": -1, "subseed_strength": 0,
        "seed_resize_from_h": -1, "seed_resize_from_w": -1, "batch_size": 1, "n_iter": 1, "steps": 3, "cfg_scale": 7,
        "width": 64, "height": 64, "restore_faces": False, "tiling": False, "negative_prompt": "", "eta": 0,
        "s_churn": 0, "s_tmax": 0, "s_tmin": 0, "s_noise": 1, "sampler_index": "Euler a", **fields,
    }  # fmt: skip
    answer = ask(server, "/sdapi/v1/txt2img", body)
    assert answer["images"]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"mask": True},
        {"mask": True, "inpainting_mask_invert": True},
        {"script_name": "sd upscale", "script_args": ["", 8, "Lanczos", 2.0]},
    ],
    ids=str,
)
def test_img2img_as_that_programs_tests_send_it(server: RunningServer, fields: dict[str, Any]) -> None:
    body = {
        "init_images": [as_base64(apple())], "resize_mode": 0, "denoising_strength": 0.75, "mask": None,
        "mask_blur": 4, "inpainting_fill": 0, "inpaint_full_res": False, "inpaint_full_res_padding": 0,
        "inpainting_mask_invert": False, "prompt": "example prompt", "styles": [], "seed": -1, "subseed": -1,
        "subseed_strength": 0, "seed_resize_from_h": -1, "seed_resize_from_w": -1, "batch_size": 1, "n_iter": 1,
        "steps": 3, "cfg_scale": 7, "width": 64, "height": 64, "restore_faces": False, "tiling": False,
        "negative_prompt": "", "eta": 0, "s_churn": 0, "s_tmax": 0, "s_tmin": 0, "s_noise": 1,
        "override_settings": {}, "sampler_index": "Euler a", "include_init_images": False, **fields,
    }  # fmt: skip
    if body.get("mask"):
        body["mask"] = as_base64(mask())
    assert ask(server, "/sdapi/v1/img2img", body)["images"]


def test_extras_as_that_programs_tests_send_them(server: RunningServer) -> None:
    body = {
        "resize_mode": 0, "show_extras_results": True, "gfpgan_visibility": 0, "codeformer_visibility": 0,
        "codeformer_weight": 0, "upscaling_resize": 2, "upscaling_resize_w": 128, "upscaling_resize_h": 128,
        "upscaling_crop": True, "upscaler_1": "Lanczos", "upscaler_2": "None", "extras_upscaler_2_visibility": 0,
        "image": as_base64(apple((32, 32))),
    }  # fmt: skip
    assert ask(server, "/sdapi/v1/extra-single-image", body)["image"]
    for more in ({"image": body["image"]}, {"image": body["image"], "model": "clip"}):
        assert ask(server, "/sdapi/v1/extra-single-image", more)["image"]


def ask(server: RunningServer, path: str, body: Any) -> Any:
    reply = server.post(path, json.dumps(body).encode(), {"content-type": "application/json"})
    assert reply.status == 200, reply.body[:500]
    return json.loads(reply.body)


def as_base64(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


# --- our own client ---------------------------------------------------------------------------------------------------


def test_our_client_makes_a_picture_in_one_line(client: Client, tmp_path: Path) -> None:
    made = client.generate("a red apple", **SMALL)
    assert made.job.state == "done"
    assert (made.job.images[0].seed, made.job.images[0].width) == (5, 64)
    target = tmp_path / "apple.png"
    made.save(target)
    assert pictures.read_text(target.read_bytes())[0] == made.job.images[0].infotext
    assert client.read(target.read_bytes())["params"]["seed"] == 5


def test_our_client_follows_steers_and_repeats_a_job(client: Client) -> None:
    job = client.submit("a red apple", key="once", batch_count=2, **SMALL)
    assert client.submit("a red apple", key="once", batch_count=2, **SMALL) == job
    told = list(client.events(job))
    assert [one.kind for one in told].count("image") == 2
    assert told[-1].kind == "finished"
    assert all(one.job == job for one in told)
    middle = next(one for one in told if one.kind == "image")
    rest = list(client.events(job, after=middle.sequence))
    assert [one.kind for one in rest].count("image") == 1
    assert list(client.events(job, after=told[-1].sequence)) == []
    again = client.retry(job)
    assert client.wait(again).images[0].seed == 5
    long = client.submit("x", steps=900, batch_count=50, width=128, height=128)
    waiting = [client.submit(f"number {n}", **SMALL) for n in range(2)]
    assert client.move(waiting[1])
    assert client.job(waiting[1]).position == 0
    assert client.wait(long, seconds=0.05).over is False
    deadline = time.monotonic() + 120
    while client.preview(long) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert client.cancel(long)
    assert client.wait(long).state == "interrupted"
    assert client.wait(waiting[0]).state == "done"
    assert client.cancel(long) is False
    assert {job, again, long, *waiting} <= {one.id for one in client.jobs(limit=100)}


def test_our_client_starts_from_an_uploaded_picture(client: Client) -> None:
    reference = client.upload(base64.b64decode(as_base64(apple())))
    made = client.generate("a green apple", init={"image": reference, "denoising_strength": 0.5}, save=False, **SMALL)
    assert made.job.images[0].path == ""
    assert made.pictures[0][:4] == b"\x89PNG"
    enlarged = client.generate(extras={"image": reference, "upscaler": "Lanczos", "scale": 2.0})
    assert enlarged.job.images[0].width == 128


def test_our_client_finds_models_and_earlier_pictures(client: Client) -> None:
    client.generate("a lonely walrus", **SMALL)
    assert client.models()[0].runnable
    found = client.history("walrus")
    assert [one.prompt for one in found] == ["a lonely walrus"]
    assert client.history("no such thing") == []


def test_our_client_raises_the_servers_errors_with_their_advice(client: Client, server: RunningServer) -> None:
    with pytest.raises(InvalidParams, match="Did you mean"):
        client.submit("x", sampler="Eulr a")
    with pytest.raises(NotFound):
        client.job("nothing")
    with pytest.raises(NotFound):
        list(client.events("nothing"))
    with pytest.raises(Unreachable):
        Client("http://127.0.0.1:9", timeout=2).jobs()
    with pytest.raises(InvalidParams):
        Client("file:///etc/passwd")


def test_an_event_stream_that_breaks_goes_on_behind_the_last_event(client: Client) -> None:
    job = client.submit("a red apple", batch_count=3, **SMALL)

    class Breaking(Client):
        """Loses its connection after every third event."""

        breaks = 0

        def _stream(self, job_id: str, after: int | None) -> Iterator[Any]:
            for number, event in enumerate(super()._stream(job_id, after)):
                if number == 3:
                    self.breaks += 1
                    raise Unreachable("the cable")
                yield event

    breaking = Breaking(f"http://127.0.0.1:{client._port}", user="root", password=PASSWORD)
    told = list(breaking.events(job))
    assert breaking.breaks > 0
    assert [one.kind for one in told].count("image") == 3
    assert told[-1].kind == "finished"
    numbers = [one.sequence for one in told]
    assert numbers == sorted(set(numbers))


# --- OpenAI -----------------------------------------------------------------------------------------------------------


def test_openais_route_gives_pictures_and_links_that_open_without_a_credential(server: RunningServer) -> None:
    body = {"prompt": "a red apple", "model": "dall-e-3", "size": "64x64", "n": 2, "quality": "low", "style": "vivid"}
    inline = ask(server, "/v1/images/generations", {**body, "response_format": "b64_json", "output_format": "webp"})
    assert [Image.open(io.BytesIO(base64.b64decode(one["b64_json"]))).format for one in inline["data"]] == ["WEBP"] * 2
    linked = ask(server, "/v1/images/generations", body)
    assert linked["created"] > 1e9
    for one in linked["data"]:
        assert one["url"].startswith(f"{server.url}/shared/")
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("GET", one["url"].removeprefix(server.url))  # without a credential
        reply = connection.getresponse()
        assert (reply.status, reply.headers["content-type"]) == (200, "image/png")
    models = server.json("/v1/models")["data"]
    assert models[0]["object"] == "model"
    assert server.json(f"/v1/models/{models[0]['id']}")["id"] == models[0]["id"]


def test_openais_route_gives_a_picture_that_the_disk_did_not_take_itself(server: RunningServer) -> None:
    folder, aside = server.outputs / "txt2img-images", server.outputs / "aside"
    folder.rename(aside)
    folder.write_text("in the way")
    try:
        [one] = ask(server, "/v1/images/generations", {"prompt": "a red apple", "size": "64x64", "quality": "low"})[
            "data"
        ]
    finally:
        folder.unlink()
        aside.rename(folder)
    assert set(one) == {"b64_json"}
    assert Image.open(io.BytesIO(base64.b64decode(one["b64_json"]))).size == (64, 64)


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "prompt"),
        ({"prompt": "x", "n": 0}, 400, "n"),
        ({"prompt": "x", "n": True}, 400, "n"),
        ({"prompt": "x", "size": "big"}, 400, None),
        ({"prompt": "x", "size": "7x7"}, 400, None),
        ({"prompt": "x", "response_format": "bmp"}, 400, "response_format"),
        ({"prompt": "x", "model": "no-such-model"}, 404, "model"),
    ],
    ids=str,
)
def test_openais_route_refuses_in_openais_words(
    server: RunningServer, body: dict[str, Any], status: int, param: str | None
) -> None:
    reply = server.post("/v1/images/generations", json.dumps(body).encode(), {"content-type": "application/json"})
    assert reply.status == status, reply.body
    error = json.loads(reply.body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert error["message"]


# --- MCP --------------------------------------------------------------------------------------------------------------


def test_mcp_tools_make_pictures_and_find_them(client: Client) -> None:
    pytest.importorskip("mcp")
    from mcp.server.mcpserver.exceptions import ToolError

    from webui.mcp_server import build

    server = build(client)

    def call(tool: str, **arguments: Any) -> list[Any]:
        result: Any = asyncio.run(server.call_tool(tool, arguments))
        return list(result.content)

    assert {tool.name for tool in asyncio.run(server.list_tools())} == {
        "generate", "search_history", "show_picture", "list_models",
    }  # fmt: skip
    made = call("generate", prompt="a patient heron", count=2, **SMALL)
    shown = [one for one in made if one.type == "image"]
    assert [one.mime_type for one in shown] == ["image/png"] * 2
    assert Image.open(io.BytesIO(base64.b64decode(shown[0].data))).size == (64, 64)
    assert "seed 5, 64x64" in made[-1].text
    found = json.loads(call("search_history", query="heron", limit=1)[0].text)
    assert (found["prompt"], found["seed"]) == ("a patient heron", 6)
    assert call("show_picture", picture_id=found["id"])[0].data == shown[1].data
    assert json.loads(call("list_models")[0].text)["family"] == "SD1"
    with pytest.raises(ToolError, match="count"):
        call("generate", prompt="x", count=1000)
    with pytest.raises(ToolError, match="multiple of 8"):
        call("generate", prompt="x", width=7, height=64)
    with pytest.raises(ToolError, match="no such picture"):
        call("show_picture", picture_id=10**6)


def test_the_mcp_command_speaks_the_protocol(server: RunningServer) -> None:
    pytest.importorskip("mcp")
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    messages = (
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/list"},
        {"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": "list_models", "arguments": {}}},
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "webui", "mcp", "--url", server.url, "--auth", f"root:{PASSWORD}"],
        cwd=REPO_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        answers = {}
        for message in messages:
            process.stdin.write(json.dumps(message) + "\n")
            process.stdin.flush()
            while "id" in message and message["id"] not in answers:
                answer = json.loads(process.stdout.readline())
                answers[answer.get("id")] = answer
    finally:
        process.stdin.close()
        process.wait(60)
    assert answers[1]["result"]["serverInfo"]["name"] == "latent-webui"
    assert "generate" in {tool["name"] for tool in answers[2]["result"]["tools"]}
    assert "emoji" in json.dumps(answers[3]["result"])
