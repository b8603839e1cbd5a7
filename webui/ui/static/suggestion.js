/* A line under the sampling group: what suits a checkpoint, or a LoRA in the prompt, that was distilled to few steps. One
   click takes it, another takes it back. */
"use strict";
(() => {
  const { el, call, keepFocus, sayTaken, setText } = latent.tools;
  const { form, models } = latent;
  const WAIT = 300; // ms of rest before the server is asked about names that are being typed

  function suggestion(element) {
    const words = el("span");
    const use = el("button", { type: "button", class: "quiet", onclick: () => take() }, "Use them");
    const line = el("p", { class: "suggestion", role: "status" }, words, use);
    let known = null, ofLora = null, asked = "", timer = 0;
    const wanted = () => ({ sampler: known.sampler, schedule: known.schedule, steps: known.steps, cfg_scale: known.cfg_scale });
    const taken = () => Object.entries(wanted()).every(([name, value]) => form.values[name] === value);

    async function take() {
      const before = { ...form.values };
      const notes = await form.set(wanted(), true);
      sayTaken(`Settings for ${known.kind} taken.`, notes, { label: "Undo", run: () => form.set(before, true) });
    }
    function show() {
      known = ofLora ?? models.checkpoint(form.values.checkpoint || models.list.default_checkpoint)?.suggestion ?? null;
      keepFocus(line, () => { line.hidden = !known || taken(); });
      if (!line.hidden) {
        const what = known === ofLora ? `The LoRA ${known.lora}` : "This model";
        const steps = `${known.steps} ${known.steps === 1 ? "step" : "steps"}`;
        setText(words, `${what} is made for few steps (${known.kind}): ${known.sampler}, ${known.schedule}, ${steps} and CFG scale ${known.cfg_scale} suit it. `);
      }
    }
    /* The names of the LoRAs in the prompt; those with a weight of 0 do nothing. */
    const loras = (text) => [...text.matchAll(/<(?:lora|lyco):([^<>:]{1,300})(?::([^<>]*))?>/gi)].filter((tag) => !/^-?0*\.?0*$/.test(tag[2] ?? "1")).map((tag) => tag[1]).slice(0, 32);

    function look() {
      const names = loras(form.values.prompt ?? ""), wish = names.join("\n");
      if (wish !== asked) {
        asked = wish;
        clearTimeout(timer);
        if (names.length) timer = setTimeout(() => ask(names, wish), WAIT);
        else ofLora = null;
      }
      show();
    }
    async function ask(names, wish) {
      let found = null;
      try { found = await call(`models/suggestion?${new URLSearchParams(names.map((name) => ["lora", name]))}`); } catch { return; } // the page says by itself that the server is away
      if (wish !== asked) return;
      ofLora = found;
      show();
    }
    element.replaceChildren(line);
    form.listeners.push(look);
    models.listeners.push(() => { asked = ""; look(); });
    look();
  }
  latent.piece("suggestion", suggestion);
})();
