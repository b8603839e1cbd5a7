/* The slim header (pickers, memory, worker, theme) and the footer's line. */
"use strict";
(() => {
  const { able, bytes, call, complain, el, find, icon, iconButton, keepFocus, pickers, plural, say, setText, steer } = latent.tools;
  const { models, status, tabs, theme } = latent;

  const WORKER_WORDS = { starting: "starting", ready: "ready", busy: "working", restarting: "restarting", failed: "failed" };

  function header(element) {
    pickers(element);
    const refresh = find("#refresh-models", element);
    refresh.addEventListener("click", async () => {
      able(refresh, false);
      try {
        await models.refresh();
        say(`${plural(models.list.checkpoints.length, "checkpoint", "checkpoints")}, ${plural(models.list.vaes.length, "VAE", "VAEs")} found.`);
      } catch (error) { complain(error); }
      able(refresh, true);
    });

    const switcher = find("#theme", element);
    const label = () => {
      const words = { system: "Theme: as the system", light: "Theme: light", dark: "Theme: dark" }[theme.choice];
      switcher.replaceChildren(icon({ system: "contrast", light: "sun", dark: "moon" }[theme.choice]));
      switcher.setAttribute("aria-label", words);
      switcher.title = words;
    };
    switcher.addEventListener("click", () => theme.next());
    theme.listeners.push(label);
    label();

    const meter = find("#meter", element), fill = find("#meter i", element), amount = find("#meter span", element);
    const dot = find("#worker", element), activity = find("#activity", element);
    const runs = el("button", { type: "button", class: "quiet", title: "Show the queue", onclick: () => tabs.go("queue") });
    const stop = iconButton("Interrupt", "stop", () => { if (status.data?.running[0]) steer(status.data.running[0].id, "interrupt"); });
    activity.append(runs, stop);

    status.on(({ worker, running, waiting }) => {
      const words = WORKER_WORDS[worker.state] ?? worker.state;
      dot.dataset.state = worker.state;
      dot.title = `Worker ${words}${worker.detail ? `: ${worker.detail}` : ""}`;
      setText(find("span", dot), `Worker ${words}`);
      const memory = worker.memory;
      meter.hidden = !memory;
      if (memory) {
        fill.style.width = `${Math.min(100, (100 * memory.used) / memory.total)}%`;
        setText(amount, `${bytes(memory.used)} of ${bytes(memory.total)}`);
        meter.title = `${memory.device === "cpu" ? "RAM of the worker" : "VRAM"}: ${bytes(memory.used)} of ${bytes(memory.total)}, peak ${bytes(memory.peak)}`;
      }
      keepFocus(activity, () => {
        activity.hidden = !running.length && !waiting;
        stop.hidden = !running.length;
      });
      const first = running[0];
      const parts = [];
      if (first) parts.push(first.phase === "sampling" && first.steps ? `${Math.round(100 * first.progress)}%` : "running");
      if (waiting) parts.push(`${waiting} waiting`);
      setText(runs, parts.join(" · "));
    });
  }

  function footer(element) {
    const memoryLine = find("#memory-line", element), workerLine = find("#worker-line", element);
    find("#show-keys", element).addEventListener("click", () => latent.keys.show());
    const problem = find("#problem", element), restart = find("#restart-worker", element);
    restart.addEventListener("click", () => call("worker/restart", { method: "POST" }).then(() => status.hurry(), complain));
    status.on((data) => {
      const { worker } = data, m = worker.memory;
      keepFocus(element, () => { restart.hidden = worker.state !== "failed"; });
      setText(problem, data.problem);
      const kind = !m ? "" : m.device === "cpu" ? "RAM" : "VRAM";
      setText(memoryLine, m ? `${kind} ${bytes(m.used)} used · ${m.reserved && m.device !== "cpu" ? `${bytes(m.reserved)} reserved · ` : ""}${bytes(m.total)} total · ${bytes(m.peak)} peak` : "Memory not known yet");
      setText(workerLine, [`Worker ${WORKER_WORDS[worker.state] ?? worker.state}`, worker.device, worker.detail].filter(Boolean).join(" · "));
    });
  }

  latent.piece("header", header);
  latent.piece("footer", footer);
})();
