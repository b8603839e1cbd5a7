/* What the server is doing: asked for again and again, told to whoever listens; and how a job is steered. */
"use strict";
latent.status = (() => {
  const { call, complain, say, sleep } = latent.tools;
  const { connection, models } = latent;
  const OVER = new Set(["done", "interrupted", "failed", "cancelled", "lost"]);

  const status = {
    data: null,
    listeners: [],
    asked: 0, // how often, and the newest question that is answered:
    answered: 0,
    on(listener) {
      this.listeners.push(listener);
      if (this.data) listener(this.data);
    },
    async poll() {
      for (;;) {
        try {
          const before = this.data?.boot;
          await this.ask();
          if (before && before !== this.data.boot) models.take(await call("models")); // another server: other files
        } catch { /* the banner tells; the next round tries again */ }
        const busy = this.data?.running.length;
        await sleep(document.hidden ? 15000 : connection.lostAt ? 1000 : busy ? 1000 : 2000);
      }
    },
    async ask() {
      const asked = ++this.asked, data = await call("status");
      if (asked < this.answered) return; // a later question was answered first
      this.answered = asked;
      this.data = data;
      this.listeners.forEach((listener) => listener(data));
    },
    hurry() { this.ask().catch(() => {}); },
  };

  async function steer(id, action) {
    try {
      const { changed } = await call(`jobs/${id}/${action}`, { method: "POST" });
      if (!changed) say("The job had ended already.");
      status.hurry();
      return changed;
    } catch (error) { complain(error); }
    return false;
  }

  document.addEventListener("DOMContentLoaded", () => status.poll());
  Object.assign(latent.tools, { OVER, steer });
  return status;
})();
