/* The tab Queue: the jobs that run, wait and have ended. */
"use strict";
(() => {
  const { OVER, button, call, complain, duration, el, find, isShown, keepFocus, outputUrl, plural, redraw, say, setText, sleep, steer } = latent.tools;
  const { stage, tabs } = latent;

  const queue = {
    rows: new Map(),
    asked: 0, // how often the jobs were asked for, and the newest question that is answered:
    answered: 0,
    mount(element) {
      this.root = element;
      for (const name of ["running", "pending", "finished"]) this[name] = find(`[data-part=${name}]`, element);
      this.empty = find("[data-part=empty]", element);
      this.poll();
    },
    async poll() {
      const element = this.root;
      while (element === this.root && element.isConnected) {
        if (isShown(element) && !document.hidden) await this.draw().catch(() => {});
        await sleep(isShown(element) ? 700 : 400);
      }
    },
    async draw() {
      const asked = ++this.asked, { jobs } = await call("jobs?order=turn&limit=100&images=1");
      if (asked < this.answered) return; // a later question was answered first
      this.answered = asked;
      keepFocus(this.root, () => this.show(jobs)); // also of a job that goes from one part to another
    },
    show(jobs) {
      const parts = { running: [], pending: [], finished: [] };
      for (const job of jobs) (parts[job.state] ?? parts.finished).push(job);
      parts.pending.sort((a, b) => a.position - b.position);
      for (const [name, list] of Object.entries(parts)) {
        redraw(find("ul", this[name]), ...list.map((job) => this.row(job)));
        this[name].hidden = !list.length;
        setText(find("h2 span", this[name]), String(list.length));
      }
      this.empty.hidden = jobs.length > 0;
      const known = new Set(jobs.map((job) => job.id));
      for (const id of this.rows.keys()) if (!known.has(id)) this.rows.delete(id);
    },
    row(job) {
      const old = this.rows.get(job.id);
      if (old?.rev === job.rev) return old.node;
      const node = old?.node ?? el("li", { class: "job", "data-id": job.id }, el("div", { class: "thumbs" }), el("div", { class: "words" }, el("p", { class: "prompt" }), el("p", { class: "muted" }), el("div", { class: "line" }, el("i"))), el("div", { class: "actions" }));
      if (old?.state !== job.state) {
        node.dataset.state = job.state;
        find(".actions", node).replaceChildren(...this.actions(job));
      }
      this.rows.set(job.id, { rev: job.rev, state: job.state, node });
      const p = job.params;
      setText(find(".prompt", node), p.extras ? "Extras" : p.prompt || "(no prompt)");
      const facts = p.extras ? [p.extras.upscaler] : [p.width ? `${p.width} × ${p.height}` : "each picture's own size", `${p.sampler}, ${plural(p.steps, "step", "steps")}`];
      if (job.sources) facts.push(`a folder of ${plural(job.sources, "picture", "pictures")}`);
      if (p.batch_count * p.batch_size > 1) facts.push(`${p.batch_count * p.batch_size} pictures`);
      if (job.state === "running") facts.push(job.phase === "sampling" ? `step ${job.step}/${job.steps}` : job.line || job.phase);
      if (job.state === "pending") facts.push(job.position === 0 ? "next" : `${job.position} before it`);
      if (job.finished && job.started) facts.push(duration(job.finished - job.started));
      if (OVER.has(job.state) && job.state !== "done") facts.push(job.state);
      if (job.error && job.state !== "cancelled") facts.push(job.error.message);
      setText(find(".muted", node), facts.join(" · "));
      const line = find(".line", node);
      line.hidden = job.state !== "running";
      line.firstElementChild.style.transform = `scaleX(${job.progress})`;
      const path = job.images[0]?.path, count = path ? job.image_count : 0;
      let src = path ? outputUrl(path) : null;
      if (job.state === "running" && job.preview && !src) src = `jobs/${job.id}/preview.jpg?n=${job.preview}`;
      const thumbs = find(".thumbs", node), key = `${src} ${count}`;
      if (thumbs.dataset.key !== key) {
        thumbs.dataset.key = key;
        const link = find("a", thumbs) ?? el("a", { target: "_blank", rel: "noopener", "aria-label": "Open the picture" }, el("img", { alt: "", loading: "lazy", decoding: "async" }));
        if (src) link.href = link.firstElementChild.src = src;
        redraw(thumbs, src ? link : null, count > 1 ? el("span", { title: `${count} pictures` }, String(count)) : null);
      }
      return node;
    },
    actions(job) {
      const then = (action) => async () => { await steer(job.id, action); this.draw().catch(() => {}); };
      const retry = async () => {
        try { await call(`jobs/${job.id}/retry`, { method: "POST" }); say("Queued again."); this.draw(); } catch (error) { complain(error); }
      };
      const show = () => { tabs.go("txt2img"); stage.follow(job.id); };
      return {
        running: [button("Show", "image", show), button("Interrupt", "stop", then("interrupt"))],
        pending: [button("Move up", "up", then("move-up")), button("Cancel", "close", then("cancel"))],
      }[job.state] ?? [button("Show", "image", show), button(job.sources && job.state !== "done" ? "Go on" : "Make again", "recycle", retry)];
    },
  };

  latent.piece("queue", (element) => queue.mount(element));
})();
