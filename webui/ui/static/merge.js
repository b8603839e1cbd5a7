/* The Merge tab: a form for POST /models/tools, and how the work goes. */
"use strict";
(() => {
  const { able, call, find, isShown, say, complain, setText, sleep, fillSelect } = latent.tools;
  const { models } = latent;
  const FORMULAS = { "weighted-sum": "x in (1 - x) A + x B", slerp: "x on the arc from A to B", "add-difference": "x in A + x (B - C)" };

  function merge(element) {
    const form = find("form", element), field = (name) => form.elements[name];
    const state = find('[data-part="state"]', form), lines = find('[data-part="lines"]', form), submit = find("button", form);

    function shape() {
      const tool = field("tool").value, method = field("method").value;
      const before = element.dataset.tool;
      element.dataset.tool = tool;
      if (before !== tool) { field("precision").value = tool === "convert" ? "keep" : "fp16"; choices(); }
      setText(find('[data-part="first"]', form), tool === "merge" ? "Model A" : "Model");
      field("output").required = tool !== "convert";
      field("output").placeholder = tool === "convert" ? field("a").value.replace(/\.[^.]+$/, "") : "mixed";
      for (const node of form.querySelectorAll("[data-tool]")) node.hidden = node.dataset.tool !== tool;
      for (const node of form.querySelectorAll("[data-method]")) node.hidden = tool !== "merge" || node.dataset.method !== method;
      setText(find('[data-part="formula"]', form), FORMULAS[method]);
    }
    function choices() {
      const names = (list) => list.filter((m) => m.runnable).map((m) => [m.name, m.name.replace(/\.[^.]+$/, "")]);
      const old = models.list.checkpoints.filter((m) => /\.(ckpt|pt|pth|bin)$/i.test(m.name)).map((m) => [m.name, m.name]);
      const converting = field("tool").value === "convert", none = converting && !old.length;
      const first = none ? [["", "There is no .ckpt file in the checkpoint folder"]] : converting ? old : names(models.list.checkpoints);
      const kept = first.some(([name]) => name === field("a").value) ? field("a").value : first[0]?.[0];
      fillSelect(field("a"), first, kept);
      for (const name of ["b", "c"]) fillSelect(field(name), names(models.list.checkpoints), field(name).value || undefined);
      fillSelect(field("vae"), [["", "A's own"], ...names(models.list.vaes)], field("vae").value);
    }
    function request() {
      const tool = field("tool").value;
      const read = { tool, a: field("a").value, precision: field("precision").value, output: field("output").value.trim() };
      if (tool === "convert") return read;
      if (tool === "prune") return { ...read, ema: field("ema").checked };
      Object.assign(read, { b: field("b").value, method: field("method").value, alpha: Number(field("alpha").value) });
      if (read.method === "add-difference") read.c = field("c").value;
      if (field("vae").value) read.vae = field("vae").value;
      return read;
    }
    function show(view) {
      able(submit, !view.running);
      lines.hidden = !view.lines.length;
      lines.textContent = view.lines.slice(-6).join("\n");
      setText(state, view.running ? `Making ${view.output}` : view.code === null ? "" : view.code === 0 ? `${view.output} is ready.` : `${view.output} could not be made.`);
    }
    let following = false;
    async function follow(view) {
      show(view);
      if (following) return;
      following = true;
      try {
        while (view.running) {
          await sleep(500);
          view = await call("models/tools").catch((error) => { if (error.status) throw error; return view; }); // without a connection the work goes on
          show(view);
        }
      } finally { following = false; }
      if (view.code === 0) {
        await models.refresh();
        say(`${view.output} is in the list of checkpoints.`);
      }
    }
    /* Work that was begun before the page was loaded, or elsewhere. */
    async function look() {
      const view = await call("models/tools").catch(() => null);
      if (view?.running) await follow(view);
    }
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      try { await follow(await call("models/tools", { method: "POST", json: request() })); } catch (error) { setText(state, `${error.message} ${error.advice ?? ""}`); complain(error); }
    });
    form.addEventListener("change", shape);
    models.listeners.push(choices);
    new IntersectionObserver(([entry]) => { if (entry.isIntersecting && isShown(element)) look().catch(complain); }).observe(element);
    choices();
    shape();
  }
  latent.piece("merge", merge);
})();
