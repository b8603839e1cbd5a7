/* The stage: the job that is followed, its preview and pictures, and what is done with them. */
"use strict";
latent.stage = (() => {
  const {
    OVER, able, button, bytes, call, complain, copyFolder, copyPicture, copyText, duration, el, find, icon, look, outputUrl, plural, redraw, reuseSeed,
    say, sayTaken, setText, sleep, store, tabStore, widgetValues,
  } = latent.tools;
  const { form, models, status, tabs } = latent;
  const EARLIER = 24;
  const onceEach = (pictures) => {
    const seen = new Set();
    return pictures.filter(({ src }) => !seen.has(src) && seen.add(src));
  };

  const stage = {
    mine: tabStore.get("jobs", []),  // ids that this browser tab submitted and has not seen end
    view: null,  // the job on the stage
    earlier: [],  // pictures of jobs before it
    selected: null,  // a picture that the user chose; null: follow the job
    thumbs: new Map(),  // of the strip, by the address of the picture
    watching: 0,
    shown: [],  // who hears which picture is on the stage, and
    added: [],  // [buttons, node below the actions] that they bring

    /* For other files: `listener` hears of the picture on the stage, undefined for none; `buttons` join its actions. */
    onPicture(listener, buttons = [], below = null) {
      this.shown.push(listener);
      this.added.push([buttons, below]);
      if (this.root) this.addParts(buttons, below);
      listener(this.root && this.picture());
    },
    addParts(buttons, below) {
      this.actions.append(...buttons);
      if (below) this.actions.after(below);
    },
    listeners: new Set(),  // of what came of a submission: { submitted(id), refused(error) }
    listen(listener) { this.listeners.add(listener); return () => this.listeners.delete(listener); },

    mount(element) {
      this.root = find("#stage", element);
      for (const name of ["frame", "image", "center", "bar", "facts", "times", "warnings", "strip", "actions", "infotext", "live"]) {
        this[name] = find(`[data-part=${name}]`, this.root);
      }
      this.text = find("pre", this.infotext);
      this.unfold = find("button", this.infotext);
      this.image.addEventListener("click", (event) => {
        const cell = this.picture() && latent.grids.cellAt(event, this.image, this.picture(), this.pictures());
        if (cell) this.select(cell.src);
        else latent.viewer.open();
      });
      this.unfold.addEventListener("click", () => {
        const folded = this.infotext.classList.toggle("folded");
        this.unfold.setAttribute("aria-expanded", String(!folded));
      });
      this.drawActions();
      this.added.forEach((parts) => this.addParts(...parts));
      this.showEmpty();
      form.listeners.push(() => { if (!this.view && !this.picture()) this.showEmpty(); });
      this.resume();
    },

    // Which job to show: one of this tab's, else the one this browser saw last, else one that runs. Whatever is made or
    // chosen before the answer comes is newer, and stays.
    async resume() {
      const turn = this.watching, candidates = [...this.mine, store.get("last", null)].filter(Boolean);
      for (const id of candidates) {
        try {
          const view = await call(`jobs/${id}`);
          if (turn !== this.watching) return;
          if (!OVER.has(view.state) || id === candidates.at(-1)) { this.follow(id, view); return; }
        } catch (error) { if (!error.status) { await sleep(1000); return this.resume(); } }
      }
      const running = (await call("jobs?state=running&limit=1").catch(() => ({ jobs: [] }))).jobs[0];
      if (running && turn === this.watching) this.follow(running.id, running);
    },

    submitting() {
      this.selected = null;
      if (this.view && !OVER.has(this.view.state)) { setText(this.live, "Queued."); return; }
      this.keepPictures();
      this.view = null;
      this.setState("submitting");
      this.setFrame(form.values.width, form.values.height);
      this.showImage(null);
      this.showText("");
      this.setBar(0);
      this.message("Sending the job");
      setText(this.facts, "");
      setText(this.times, "");
      this.drawStrip();
    },
    refused({ message, advice }) {
      this.listeners.forEach((listener) => listener.refused({ message, advice }));
      if (this.view && !OVER.has(this.view.state)) { say(`${message} ${advice}`, "bad"); return; }
      this.setState("failed");
      this.problem("The job was not taken", message, advice);
    },
    submitted(id) {
      this.listeners.forEach((listener) => listener.submitted(id));
      this.mine = [...this.mine, id].slice(-50);
      tabStore.set("jobs", this.mine);
      store.set("last", id);
      status.hurry();
      if (this.view && !OVER.has(this.view.state)) this.drawFacts();
      else if (this.mine.length === 1) this.follow(id);
      else this.followNext();
    },
    // The first of this tab's jobs that is not over. One that ended while another was shown only joins the strip.
    async followNext() {
      const turn = this.watching;
      for (const id of [...this.mine]) {
        const gone = ({ status: code }) => (code === 404 ? { state: "lost", images: [] } : null);
        const view = await call(`jobs/${id}`).catch(gone);
        if (turn !== this.watching) return;
        if (!view || !OVER.has(view.state)) { this.follow(id, view); return; }
        this.forget(id);
        this.earlier = onceEach([...this.picturesOf(view), ...this.earlier]).slice(0, EARLIER);
        this.drawStrip();
      }
    },
    forget(id) {
      this.mine = this.mine.filter((other) => other !== id);
      tabStore.set("jobs", this.mine);
    },

    follow(id, view = null) {
      if (this.view && this.view.id !== id) this.keepPictures();
      if (!latent.viewer.box.open) this.selected = null; // there the keys mean the picture that is shown
      this.previewShown = 0;
      this.view = view ?? { id, rev: -1, state: "pending", params: {}, images: [], position: null, warnings: [] };
      if (view) this.show();
      this.watch(id);
    },

    async watch(id) {
      const turn = ++this.watching;
      let pause = 250;
      while (turn === this.watching && this.view?.id === id && !OVER.has(this.view.state)) {
        try {
          const view = await look(id, this.view);
          if (turn !== this.watching) return;
          pause = document.hidden ? 3000 : 250;
          if (view !== this.view) { this.view = view; this.show(); }
          if (OVER.has(view.state)) break;
        } catch (error) {
          if (error.status === 404) {
            this.view.state = "lost";
            this.setState("failed");
            this.problem("The job is gone", "The server no longer knows it.", "It may have been started with another data folder. Make the picture again.");
            break;
          }
          if (error.status === undefined) reportError(error); // no answer of the server's: a fault of the page
          pause = Math.min(pause * 2, 4000);
        }
        await sleep(pause);
      }
      if (turn === this.watching) this.ended(id);
    },

    ended(id) {
      const own = this.mine.includes(id); // another one was asked for, and stays
      this.forget(id);
      status.hurry();
      title.rest();
      if (own && this.mine.length) setTimeout(() => { if (this.view?.id === id) this.followNext(); }, 400);
    },

    // What the stage shows for the job's view.
    show() {
      const view = this.view, { state } = view;
      if (!OVER.has(state) || !view.images.length) this.setFrame(view.params.width, view.params.height);
      this.setState(state === "running" ? view.phase || "loading" : state);
      this.setBar(OVER.has(state) ? 0 : view.progress);
      this.drawFacts();
      this.drawStrip();
      this.drawWarnings();
      title.progress(view);
      if (this.selected) return;
      if (state === "pending") {
        this.showImage(null);
        this.message(view.position > 0 ? `Waiting: ${plural(view.position, "job", "jobs")} before this one` : "Waiting for its turn");
      } else if (state === "running") {
        if (view.preview) this.showPreview(view);
        else if (this.shownJob !== view.id) { this.showImage(null); this.message(view.line || { waiting: "Starting", loading: "Loading the model", saving: "Saving" }[view.phase] || "Starting"); }
      } else if (view.images.length) {
        this.showPicture(this.picture());
        const unsaved = view.images.find((image) => image.error);
        if (state === "failed") this.failure();
        else if (unsaved) this.problem("The picture could not be saved", unsaved.error, "It is kept in memory for now: use Download. Make room or give write access in the outputs folder.", false);
      } else if (state === "done" || state === "interrupted") {
        this.showImage(null);
        this.message(state === "interrupted" ? "Interrupted before a picture was finished" : "Nothing was made");
      } else {
        this.failure();
      }
      if (OVER.has(state)) this.announce();
    },
    failure() {
      const { state, error } = this.view;
      const words = { failed: "The job failed", lost: "The server was stopped while the job ran", cancelled: "The job was cancelled" };
      if (!this.view.images.length) this.showImage(null);
      this.problem(words[state] ?? "The job ended", error?.message ?? "", error?.advice ?? "", state !== "cancelled" || null);
    },
    announce() {
      const { state, images, seconds, error } = this.view;
      const made = plural(images.length, "picture", "pictures");
      setText(this.live, state === "failed" ? `Failed: ${error?.message ?? ""}` : `${state === "done" ? "Done" : state}: ${made}${seconds.total ? ` in ${duration(seconds.total)}` : ""}.`);
    },

    setState(state) {
      this.root.dataset.state = state;
      const view = this.view, running = view?.state === "running", over = !view || OVER.has(view.state);
      latent.runButtons.update({ waiting: view?.state === "pending", running: running && !over, several: (view?.params.batch_count ?? 1) > 1 });
    },
    setFrame(width, height) {
      if (!width || !height) return;
      this.root.style.setProperty("--w", width);
      this.root.style.setProperty("--h", height);
    },
    setBar(progress) {
      const percent = Math.round(100 * progress);
      this.bar.firstElementChild.style.transform = `scaleX(${progress})`;
      this.bar.setAttribute("aria-valuenow", String(percent));
    },
    /* A button in it that was pressed may go with it: the keys go on from the frame. */
    setCenter(...nodes) {
      const focused = this.center.contains(document.activeElement);
      this.center.replaceChildren(...nodes);
      this.center.hidden = !nodes.length;
      if (focused) this.frame.focus({ preventScroll: true });
    },
    message(text) { this.setCenter(el("p", {}, text)); },
    problem(what, why, next, retry = true) {
      const again = retry && this.view?.id ? button("Try again", "recycle", () => this.retry()) : null;
      this.setCenter(el("div", { class: "problem", role: "alert" }, el("h3", {}, what), why ? el("p", {}, why) : null, next ? el("p", { class: "next" }, next) : null, again));
      setText(this.facts, "");
      setText(this.times, "");
    },
    async retry() {
      try { this.submitted((await call(`jobs/${this.view.id}/retry`, { method: "POST" })).id); } catch (error) { complain(error); }
    },
    showEmpty() {
      if (this.root.dataset.state && !["empty"].includes(this.root.dataset.state)) return;
      this.setFrame(form.values.width || models.nativeSize(), form.values.height || models.nativeSize());
      const prompts = models.examples(form.values.checkpoint);
      if (this.root.dataset.state === "empty" && this.examples === prompts) return;
      this.examples = prompts;
      this.setState("empty");
      const make = async (prompt) => { await form.set({ prompt }); find("#generate").click(); };
      this.setCenter(el("div", { class: "examples" }, el("p", {}, "Describe a picture, or start with one of these"),
        el("div", { class: "chips" }, ...prompts.map((prompt) => el("button", { type: "button", class: "chip", onclick: () => make(prompt) }, prompt)))));
    },

    // Pictures: of the job on the stage first, then of the jobs before it.
    pictures() {
      return onceEach([...(this.view ? this.picturesOf(this.view) : []), ...this.earlier]); // a job may be shown once more
    },
    picturesOf(view) {
      return view.images.map((image) => {
        const src = image.path ? outputUrl(image.path) : `jobs/${view.id}/pictures/${image.index}.png`;
        const params = latent.grids.paramsOf(view, image);
        return { ...image, src, job: view.id, file: image.path.split("/").pop() || `unsaved-${image.seed}.png`, params, seconds: view.seconds, peak: view.peak_memory };
      });
    },
    keepPictures() {
      this.earlier = this.pictures().slice(0, EARLIER);
      if (this.view) this.view = { ...this.view, images: [] };
    },
    picture() {
      const pictures = this.pictures();
      if (this.selected) return pictures.find((p) => p.src === this.selected);
      if (!this.view || !OVER.has(this.view.state) || !this.view.images.length) return undefined;
      return pictures.slice(0, this.view.images.length).findLast((p) => latent.grids.isSheet(p)) ?? pictures[0];
    },
    select(src) {
      this.selected = src;
      const picture = this.picture();
      if (picture) this.showPicture(picture);
      this.drawStrip();
      this.drawFacts();
    },

    /* `missing()`: where it cannot be read. A preview may have been replaced before it was. */
    showImage(src, alt = "", missing = () => {}) {
      this.wanted = src;
      if (src === null) {
        this.image.hidden = true;
        this.image.removeAttribute("src");
        this.shownJob = null;
        this.drawActions();
        return;
      }
      const next = new Image();
      next.src = src;
      next.decode().then(() => {
        if (this.wanted !== src) return;
        this.image.src = src;
        this.image.alt = alt;
        this.image.hidden = false;
        this.center.hidden = !this.center.querySelector(".problem");
      }, () => { if (this.wanted === src) missing(); });
    },
    showPreview(view) {
      if (this.previewShown === view.preview) return;
      this.previewShown = view.preview;
      this.shownJob = view.id;
      this.image.dataset.kind = "preview";
      this.showImage(`jobs/${view.id}/preview.jpg?n=${view.preview}`, "The picture in the making");
    },
    showPicture(picture) {
      this.setFrame(picture.width, picture.height);
      this.image.dataset.kind = "result";
      this.showImage(picture.src, picture.params.prompt ? `Picture: ${picture.params.prompt.slice(0, 200)}` : "Picture", () => {
        this.image.hidden = true;
        this.image.removeAttribute("src");
        if (!this.center.querySelector(".problem")) this.message("The file is not where it was.");
      });
      if (!this.center.querySelector(".problem") || this.selected) this.center.replaceChildren();
      this.showText(picture.infotext);
      this.drawActions();
      latent.grids.look(picture);
    },
    showText(text) {
      setText(this.text, text);
      this.infotext.hidden = !text;
      requestAnimationFrame(() => { this.unfold.hidden = !text || (this.infotext.classList.contains("folded") && this.text.scrollHeight <= this.text.clientHeight + 2); });
    },

    drawFacts() {
      const view = this.view;
      if (!view) return;
      const parts = [], others = this.mine.filter((id) => id !== view.id).length;
      const picture = this.picture();
      if (view.state === "running") {
        if (view.phase === "sampling" && view.steps) {
          if (view.batches > 1) parts.push(`batch ${view.batch}/${view.batches}`);
          parts.push(`step ${view.step}/${view.steps}`);
          if (view.rate) parts.push(view.rate >= 1 ? `${view.rate.toFixed(1)} it/s` : `${(1 / view.rate).toFixed(1)} s/it`);
          if (view.seconds_left !== null && view.rate) parts.push(`${duration(view.seconds_left)} left`);
        } else parts.push(view.phase === "saving" ? "saving" : view.phase === "loading" ? "loading" : "starting");
      } else if (picture) {
        parts.push(`${picture.width} × ${picture.height}`);
        if (picture.seconds?.total) parts.push(duration(picture.seconds.total));
        if (picture.peak) parts.push(`peak memory ${bytes(picture.peak)}`);
        if (view.state === "interrupted" && !this.selected) parts.unshift("interrupted");
      } else if (view.seconds?.total && OVER.has(view.state)) parts.push(duration(view.seconds.total));
      if (others) parts.push(`${others} more waiting`);
      setText(this.facts, parts.join(" · "));
      const stages = Object.entries(view.seconds ?? {}).filter(([name, s]) => name !== "total" && s >= 0.005);
      setText(this.times, OVER.has(view.state) ? stages.map(([name, s]) => `${name} ${s < 10 ? s.toFixed(2) : s.toFixed(1)} s`).join(" · ") : "");
    },
    drawWarnings() {
      const lines = this.view.warnings.map((w) => w.text);
      const key = JSON.stringify(lines);
      if (this.warned === key) return;
      this.warned = key;
      this.warnings.hidden = !lines.length;
      this.warnings.replaceChildren(...lines.map((line) => el("li", {}, icon("info"), el("span", {}, line))));
    },
    drawStrip() {
      const view = this.view, pictures = this.pictures();
      const expected = view && !OVER.has(view.state) ? (view.params.batch_count ?? 1) * (view.params.batch_size ?? 1) * (view.sources || 1) : 0;
      const slots = Math.min(Math.max(0, expected - (view?.images.length ?? 0)), 64);
      const shown = this.picture();
      const key = JSON.stringify([pictures.map((p) => p.src), slots, shown?.src]);
      if (this.stripKey === key) return;
      this.stripKey = key;
      this.strip.hidden = pictures.length + slots < 2;
      const before = this.thumbs;
      this.thumbs = new Map(pictures.map((p) => [p.src, before.get(p.src) ?? el("button", { type: "button", class: "thumb", onclick: () => this.select(p.src) }, el("img", { src: p.src, alt: "", loading: "lazy", decoding: "async" }))]));
      pictures.forEach((p, index) => {
        const thumb = this.thumbs.get(p.src);
        thumb.setAttribute("aria-label", `Picture ${index + 1}, seed ${p.seed}`);
        thumb.setAttribute("aria-pressed", String(p.src === shown?.src));
      });
      const nodes = [...this.thumbs.values()];
      nodes.splice(view?.images.length ?? 0, 0, ...Array.from({ length: slots }, () => el("span", { class: "slot" })));
      redraw(this.strip, ...nodes);
    },

    drawActions() {
      const picture = this.picture();
      if (!this.actionButtons) {
        const on = (run) => () => { const p = this.picture(); if (p) run(p); };
        this.download = el("a", { class: "quiet", role: "button" }, icon("download"), el("span", {}, "Download"));
        const apart = { target: "_blank", rel: "noopener", title: "The file in a tab of its own" };
        this.open = el("a", { class: "quiet", role: "button", ...apart }, icon("fit"), el("span", {}, "Open"));
        this.actionButtons = [
          button("Copy picture", "copy", on(copyPicture)),
          this.download,
          this.open,
          button("Copy parameters", "text", on((p) => copyText(p.infotext, "Parameters"))),
          button("Copy folder path", "folder", on(copyFolder)),
          button("PNG info", "info", on((p) => latent.pngInfo.open(p.src, p.file))),
          button("Reuse parameters", "reuse", on((p) => { const values = widgetValues(p.params); tabs.goFor(values); form.set(values, true).then((notes) => sayTaken("Parameters taken.", notes)); })),
          button("Reuse seed", "recycle", on((p) => reuseSeed(p))),
          ...latent.send.buttons(() => this.picture()),
        ];
        this.actions.append(...this.actionButtons);
      }
      this.shown.forEach((listener) => listener(picture));
      for (const node of this.actionButtons) {
        if (node.tagName === "BUTTON") able(node, Boolean(picture));
      }
      if (picture) this.download.download = picture.file;
      for (const link of [this.download, this.open]) {
        if (picture) {
          link.href = picture.src;
          link.removeAttribute("aria-disabled");
          link.tabIndex = 0;
        } else {
          link.removeAttribute("href");
          link.setAttribute("aria-disabled", "true");
          link.tabIndex = -1;
        }
      }
    },
  };

  const title = {
    base: "Latent WebUI",
    progress(view) {
      if (view.state === "pending") document.title = `Waiting · ${this.base}`;
      else if (view.state === "running") document.title = view.phase === "sampling" && view.steps ? `${view.step}/${view.steps} · ${Math.round(100 * view.progress)}% · ${this.base}` : `Loading · ${this.base}`;
    },
    rest() { document.title = this.base; },
  };

  latent.piece("stage", (element) => stage.mount(element));
  return stage;
})();
