"""The Merge tab, and what is suggested for LoRAs that are made for few steps, on the real page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from embedded import EMBEDDED_CHECKPOINT
from steps import focused, frames, set_values, until, wait_for
from test_cards import BLOCK, write

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module", autouse=True)
def files(server: Any) -> Iterator[Path]:
    """A LoRA whose name says LCM, and a checkpoint that is a pickle, as far as its name goes."""
    models = server.data_dir / "models"
    lora = write(models / "Lora" / "swift-lcm.safetensors", {f"{BLOCK}.lora_down.weight": (4, 768)})
    old = models / "Stable-diffusion" / "ancient.ckpt"
    old.write_bytes(b"PK\x03\x04" + bytes(100))
    server.post("/models/refresh")
    yield models
    for path in (lora, old, models / "Stable-diffusion" / "pagemix.safetensors"):
        path.unlink(missing_ok=True)
    (models / "Stable-diffusion" / "pagemix.yaml").unlink(missing_ok=True)
    server.post("/models/refresh")


def open_tab(page: Any) -> Any:
    page.get_by_role("tab", name="Merge", exact=True).click()
    form = page.locator("form.merge")
    form.wait_for()
    return form


def test_settings_that_suit_a_lora_are_offered_taken_and_given_back(page: Any) -> None:
    line = page.locator("#suggestion .suggestion")
    before = page.evaluate("(({ sampler, steps, cfg_scale }) => [sampler, steps, cfg_scale])(latent.form.values)")
    set_values(page, prompt="a red apple <lora:swift-lcm:0.8>")
    line.wait_for()
    assert "The LoRA swift-lcm is made for few steps (LCM): LCM, SGM Uniform, 6 steps" in line.inner_text()
    line.get_by_role("button", name="Use them").press("Enter")
    wait_for(page, "latent.form.values.sampler === 'LCM' && latent.form.values.cfg_scale === 1.5")
    line.wait_for(state="hidden")
    assert page.evaluate("document.activeElement !== document.body")
    page.get_by_role("button", name="Undo", exact=True).click()
    wait_for(
        page,
        "before => [latent.form.values.sampler, latent.form.values.steps, latent.form.values.cfg_scale]"
        ".every((value, i) => value === before[i])",
        arg=before,
    )
    line.wait_for()
    set_values(page, prompt="a red apple <lora:swift-lcm:0>")
    line.wait_for(state="hidden")


def test_a_mix_of_two_models_is_made_and_is_in_the_list(page: Any) -> None:
    form = open_tab(page)
    form.get_by_label("Method").select_option("slerp")
    assert form.get_by_label("Model C").is_hidden()
    for model in ("Model A", "Model B"):
        form.get_by_label(model).select_option(EMBEDDED_CHECKPOINT.name)
    form.get_by_label("Name of the new file").fill("pagemix")
    form.get_by_role("button", name="Make the model").click()
    form.get_by_text("pagemix is ready.").wait_for()
    assert "tensors were mixed" in form.locator("pre").inner_text()
    wait_for(page, "latent.models.checkpoint('pagemix') !== undefined")
    form.get_by_role("button", name="Make the model").click()
    form.get_by_text("pagemix could not be made.").wait_for()
    assert "is there already" in form.locator("pre").inner_text()


def test_a_ckpt_file_is_offered_for_conversion_and_needs_no_name(page: Any) -> None:
    asked: list[Any] = []

    def answer(route: Any) -> None:
        if route.request.method == "POST":
            asked.append(route.request.post_data_json)
        route.fulfill(json={"running": False, "lines": ["Written: 1 KB."], "code": 0, "output": "ancient"})

    page.route("**/models/tools", answer)
    form = open_tab(page)
    form.locator("[name=tool]").select_option("convert")
    for label in ("Model B", "Method", "VAE inside", "Keep the averaged weights (EMA)"):
        assert form.get_by_label(label).is_hidden()
    assert form.locator("[name=a] option").all_inner_texts() == ["ancient.ckpt"]
    form.get_by_role("button", name="Make the model").click()
    form.get_by_text("ancient is ready.").wait_for()
    assert asked == [{"tool": "convert", "a": "ancient.ckpt", "precision": "keep", "output": ""}]


def test_work_is_followed_from_a_page_that_did_not_begin_it_and_through_a_lost_connection(page: Any) -> None:
    state = {"running": True, "lines": ["tensors were mixed"], "code": None, "output": "slow"}
    gone: list[Any] = []
    asked: list[str] = []

    def answer(route: Any) -> None:
        asked.append(route.request.method)
        if state["running"] is None:
            gone.append(route)
            route.abort()
        else:
            route.fulfill(json=state)

    page.route("**/models/tools", answer)
    form = open_tab(page)
    form.get_by_text("Making slow").wait_for()
    button = form.get_by_role("button", name="Make the model")
    assert button.is_disabled()
    state["running"] = False
    wait_for(page, "!document.querySelector('form.merge button').disabled")
    form.get_by_label("Name of the new file").fill("slow")
    state["running"] = True
    button.press("Enter")
    wait_for(page, "document.querySelector('form.merge button').ariaDisabled")
    assert button.is_disabled()
    assert focused(page) == "Make the model"
    form.get_by_label("Name of the new file").press("Enter")  # nor is it sent from a field
    frames(page)
    assert asked.count("POST") == 1
    state["running"] = None
    until(lambda: page.wait_for_timeout(50) or len(gone) >= 2)
    state.update(running=False, code=0)
    form.get_by_text("slow is ready.").wait_for()
    assert button.is_enabled()
