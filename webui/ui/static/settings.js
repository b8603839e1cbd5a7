/* The tab Settings, drawn from the settings' own descriptions. */
"use strict";
(() => {
  const { able, el, fill, find, iconButton, keepFocus, redraw, setText, bytes, plural, sleep, isShown } = latent.tools;

  const settings = {
    mount(element, env) {
      this.server = env.server;
      const host = find("[data-part=groups]", element), search = find("input[type=search]", element);
      const sift = () => {
        const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
        host.querySelectorAll(".setting").forEach((row) => { row.hidden = !words.every((w) => row.dataset.words.includes(w)); });
        host.querySelectorAll("section").forEach((section) => { section.hidden = !section.querySelector(".setting:not([hidden])"); });
        const kept = find("[data-part=caches]", element), matches = words.every((w) => kept.textContent.toLowerCase().includes(w));
        kept.classList.toggle("filtered", !matches);
        find("[data-part=none]", element).hidden = Boolean(host.querySelector("section:not([hidden])")) || (matches && !kept.hidden);
      };
      search.addEventListener("input", sift);
      this.draw(host).then(() => { if (search.value) sift(); }); // words may be there before the settings are
    },
    async draw(host) {
      try {
        const groups = await this.server.read_settings();
        host.replaceChildren(...groups.map((group) => el("section", {}, el("h2", {}, group.title), ...group.entries.map((entry) => this.row(entry)))));
      } catch { host.replaceChildren(el("p", { class: "bad" }, "The settings could not be read. Reload the page.")); }
    },
    row(entry) {
      const id = `s-${entry.key.replace(/\W/g, "-")}`;
      const error = el("p", { class: "bad", role: "alert", id: `${id}-error`, hidden: true });
      const note = el("p", { class: "saved", role: "status" });
      const control = this.control(entry, id);
      const read = () => (entry.kind === "bool" ? control.checked : entry.kind === "number" ? (control.value.trim() === "" ? null : Number(control.value)) : control.value);
      const write = (value) => { entry.kind === "bool" ? (control.checked = value) : (control.value = value); };
      const reset = iconButton(`Reset ${entry.label}`, "reset", () => { write(entry.default); save(); });
      const field = el("div", { class: "control" }, control, reset, entry.suggestions.length ? el("datalist", { id: `${id}-list` }, ...entry.suggestions.map((value) => el("option", { value }))) : null);
      const mark = () => keepFocus(field, () => { reset.hidden = read() === entry.default; });
      let busy = false, again = false;
      const save = async () => {
        again = true;
        if (busy) return; // one on its way at a time, so that none overtakes another
        busy = true;
        let answer, sent;
        while (again) {
          again = false;
          sent = read();
          try { answer = await this.server.save_setting({ key: entry.key, value: sent }); } catch { answer = { error: "The server does not answer. Nothing was saved." }; }
        }
        busy = false;
        error.hidden = !answer.error;
        setText(error, answer.error ?? "");
        control.setAttribute("aria-invalid", String(Boolean(answer.error)));
        setText(note, answer.error ? "" : { now: "Saved.", worker: "Saved. The engine starts anew when it is idle.", restart: "Saved. In force after a restart." }[entry.effect]);
        if (!answer.error && read() === sent) write(answer.value); // else something is being typed
        if (!answer.error) this.apply(entry.key, answer.value);
        mark();
        setTimeout(() => setText(note, ""), 6000);
      };
      control.addEventListener("change", save);
      mark();
      const words = `${entry.label} ${entry.tip} ${entry.key}`.toLowerCase();
      return el("div", { class: "setting", "data-words": words, "data-key": entry.key },
        el("div", { class: "about" }, el("label", { for: id }, entry.label), el("p", { class: "muted", id: `${id}-tip` }, entry.tip, { worker: " Starts the engine anew.", restart: " Needs a restart." }[entry.effect] ?? "")),
        field, error, note);
    },
    /* What this page has of the settings follows at once. */
    apply(key, value) {
      if (key === "page.theme") latent.theme.offer(value);
    },
    control(entry, id) {
      const common = { id, "aria-describedby": `${id}-tip ${id}-error` };
      if (entry.kind === "bool") {
        const box = el("input", { type: "checkbox", ...common });
        box.checked = entry.value;
        return box;
      }
      if (entry.kind === "choice") {
        const select = el("select", common, ...entry.choices.map((choice) => el("option", { value: choice }, choice)));
        select.value = entry.value;
        return select;
      }
      const input = el("input", entry.kind === "number" ? { type: "number", min: entry.low, max: entry.high, step: entry.whole ? 1 : "any", ...common } : { type: "text", spellcheck: "false", list: entry.suggestions.length ? `${id}-list` : null, ...common });
      input.value = entry.value;
      return input;
    },
  };

  /* What the engine keeps from job to job: sizes, bounds, and how to have it emptied. */
  const caches = {
    rows: new Map(),
    mount(element, env) {
      this.server = env.server;
      this.asked = this.shown = 0;
      this.part = (name) => find(`[data-part=${name}]`, element);
      this.part("clear-all").addEventListener("click", () => this.clear(""));
      const seen = new IntersectionObserver((parts) => { if (parts.some((part) => part.isIntersecting)) this.draw(); });
      for (const part of ["groups", "caches"]) seen.observe(this.part(part));
    },
    /* The rows, also shown: but not where a later call's answer has come first. */
    async draw() {
      const asked = (this.asked += 1);
      let rows;
      try { rows = await this.server.read_caches(); } catch { return []; }
      if (asked < this.shown) return rows;
      this.shown = asked;
      this.part("caches").hidden = !rows.length;
      redraw(this.part("rows"), ...rows.map((row) => this.row(row)));
      able(this.part("clear-all"), rows.some((row) => row.entries));
      return rows;
    },
    /* The row of a cache stays the same node: its button may be the one that was pressed. */
    row(cache) {
      const bounds = [cache.most ? `${cache.most} at most` : "", cache.limit ? `${bytes(cache.limit)} at most` : ""].filter(Boolean).join(", ");
      const size = cache.entries ? `${plural(cache.entries, "entry", "entries")}, ${bytes(cache.bytes)}` : "Empty";
      const row = this.rows.get(cache.name) ?? el("div", { class: "setting", "data-cache": cache.name }, el("div", { class: "about" }), el("div", { class: "amount" }, el("span"), el("span", { class: "muted" }),
        el("button", { type: "button", class: "quiet", "aria-label": `Clear ${cache.title}`, onclick: () => this.clear(cache.name) }, "Clear")));
      this.rows.set(cache.name, row);
      fill(row.firstElementChild, el("p", { class: "name" }, cache.title), el("p", { class: "muted" }, cache.tip), cache.held.length ? el("p", { class: "muted held" }, cache.held.join(", ")) : null);
      const [amount, limits, clear] = row.lastElementChild.children;
      setText(amount, size);
      setText(limits, bounds);
      able(clear, cache.entries > 0);
      return row;
    },
    async clear(name) {
      const cleared = this.part("cleared");
      let answer;
      try { answer = await this.server.clear_cache(name); } catch { answer = { error: "The server does not answer." }; }
      setText(cleared, answer.error ?? (answer.waits ? "A job runs. This is cleared when it is over." : "Clearing."));
      if (answer.error || answer.waits) return;
      for (let tries = 0; tries < 40 && isShown(cleared); tries++) {
        const rows = await this.draw();
        if (!rows.some((row) => row.entries && (!name || row.name === name))) { setText(cleared, "Cleared."); return; }
        await sleep(250);
      }
    },
  };

  latent.piece("settings", (element, env) => { settings.mount(element, env); caches.mount(element, env); });
})();
