/* A line under the sampling group: what suits a checkpoint that was distilled to few steps. One click takes it, another
   takes it back. */
"use strict";
(() => {
  const { el, say, setText } = latent.tools;
  const { form, models } = latent;

  function suggestion(element) {
    const words = el("span");
    const use = el("button", { type: "button", class: "quiet", onclick: () => take() }, "Use them");
    const line = el("p", { class: "suggestion", role: "status" }, words, use);
    let known = null;
    const wanted = () => ({ sampler: known.sampler, schedule: known.schedule, steps: known.steps, cfg_scale: known.cfg_scale });
    const taken = () => Object.entries(wanted()).every(([name, value]) => form.values[name] === value);

    async function take() {
      const before = { ...form.values };
      await form.set(wanted());
      say(`Settings for ${known.kind} taken.`, "", { label: "Undo", run: () => form.set(before, true) });
    }
    function show() {
      known = models.checkpoint(form.values.checkpoint || models.list.default_checkpoint)?.suggestion ?? null;
      line.hidden = !known || taken();
      if (!line.hidden) {
        setText(words, `This is a ${known.kind} model: ${known.sampler}, ${known.schedule}, ${known.steps} ${known.steps === 1 ? "step" : "steps"} and CFG scale ${known.cfg_scale} suit it. `);
      }
    }
    element.replaceChildren(line);
    form.listeners.push(show);
    models.listeners.push(show);
    show();
  }
  latent.piece("suggestion", suggestion);
})();
