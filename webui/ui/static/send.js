/* A picture that is here, sent to where something is done with it; and "hires this picture".

   A picture: { src, path, width, height, params, infotext, index }. Only `src` is needed; with `path`, a name below
   outputs, the server takes its own file and nothing is uploaded. */
"use strict";
latent.send = (() => {
  const { button, call, say, complain, widgetValues, seedOf } = latent.tools;
  const GROUPS = /^(mode$|init\.|inpaint\.|hires\.|sd_upscale\.)/; // what is done with the picture is said by its new place
  const BATCH = /^batch_(count|size)$/;
  const takers = new Map(); // id -> a function of a stored picture and the one it was

  /* What the server knows of the picture once it has it: { reference, width, height, has_alpha }. */
  async function store(picture) {
    if (picture.path) {
      try { return await call(`inputs?${new URLSearchParams({ output: picture.path })}`, { method: "POST" }); } catch (error) {
        if (!error.status) throw error; // moved or deleted meanwhile: the bytes are in the page
      }
    }
    const blob = picture.blob ?? await (await fetch(picture.src)).blob();
    return call("inputs", { method: "POST", body: blob });
  }

  /* The parameters that made it, as values of the form, without what was done with a picture then. */
  function parametersOf(picture) {
    if (!picture.params) return {};
    const values = Object.fromEntries(Object.entries(widgetValues(picture.params)).filter(([name]) => !GROUPS.test(name) && !BATCH.test(name)));
    if (picture.infotext && "seed" in values) values.seed = seedOf(picture);
    delete values.width;
    delete values.height;
    return values;
  }

  async function to(id, picture) {
    document.querySelectorAll("dialog[open]").forEach((dialog) => dialog.close());
    try {
      if (!takers.has(id)) await latent.tabs.img2img();
      await takers.get(id)(await store(picture), picture, parametersOf(picture));
    } catch (error) { complain(error); }
  }

  // --- hires, with the picture's own parameters ---

  /* A number of any length stays as it is: as text, put into the JSON in place of a mark. */
  const withNumbers = (json, numbers) => Object.entries(numbers).reduce((text, [mark, digits]) => text.replace(`"@${mark}"`, () => digits), json);
  const digitsAfter = (text, key) => text?.match(new RegExp(`(?:^|[,\\n] ?)${key}: (\\d+)`))?.[1];

  function hiresRequest(picture, reference, values) {
    const name = (key) => key.replace("hires.", "");
    const hires = Object.fromEntries(Object.entries(values).filter(([key]) => key.startsWith("hires.") && key !== "hires.on").map(([key, value]) => [name(key), value]));
    for (const key of ["sampler", "schedule"]) if (hires[key] === latentBoot.form.fields[`hires.${key}`].default) hires[key] = null;
    for (const key of ["cfg_scale", "checkpoint"]) hires[key] = hires[key] === "" ? null : hires[key] ?? null;
    const { params, infotext = "" } = picture, varied = params.variation_strength > 0;
    const json = JSON.stringify({
      ...params, width: picture.width, height: picture.height, init: null, inpaint: null, sd_upscale: null, extras: null,
      hires: { ...hires, first_pass: reference }, batch_size: 1, batch_count: 1, seed: "@seed", variation_seed: "@variation",
    });
    const variation = BigInt(params.variation_seed ?? -1) + BigInt(varied ? picture.index ?? 0 : 0);
    return withNumbers(json, { seed: digitsAfter(infotext, "Seed") ?? String(picture.seed ?? -1), variation: digitsAfter(infotext, "Variation seed") ?? String(variation) });
  }

  async function hires(picture) {
    document.querySelectorAll("dialog[open]").forEach((dialog) => dialog.close());
    if (!picture.params) { say("This picture carries no parameters to make it larger with. Extras can enlarge it.", "bad"); return; }
    try {
      const { reference } = await store(picture);
      const { id } = await call("jobs", { method: "POST", body: hiresRequest(picture, reference, latent.form.values), type: "application/json" });
      latent.tabs.go("txt2img");
      latent.stage.submitted(id);
      say("Queued at a larger size.");
    } catch (error) { complain(error); }
  }

  /* The buttons that every place with a picture has. `current()`: the picture, or nothing. */
  const TARGETS = [["img2img", "To img2img", "image"], ["inpaint", "To inpaint", "brush"], ["extras", "To extras", "expand"]];
  function buttons(current, { withHires = true } = {}) {
    const on = (act) => () => { const picture = current(); if (picture) act(picture); };
    const made = TARGETS.map(([id, label, icon]) => button(label, icon, on((picture) => to(id, picture)), { "data-send": id }));
    if (withHires) made.push(button("Hires", "hires", on(hires), { title: "Make this picture larger with its own parameters and the form's Hires. fix settings", "data-send": "hires" }));
    return made;
  }

  return { to, hires, buttons, store, hiresRequest, taker: (id, take) => takers.set(id, take) };
})();
