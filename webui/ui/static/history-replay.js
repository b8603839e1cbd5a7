/* Making a picture again: queue it, follow the job, compare the pixels, say the verdict. */
"use strict";
latent.history.replay = (() => {
  const { call, look, sleep, OVER } = latent.tools;
  const runs = new Map(); // picture id -> its newest run in this page
  const listeners = [];
  const LOOKS_FOR_CHILD = 20;

  const number = (value) => (value >= 0.1 ? value.toFixed(2) : value.toPrecision(2));

  /* The verdict in words: { good, title, text }. */
  function verdict(difference) {
    switch (difference.verdict) {
      case "identical":
        return { good: true, title: "Identical", text: "Every pixel is the same." };
      case "different":
        if (difference.max_difference === null) return { good: false, title: "Different", text: difference.notes.join(" ") };
        return {
          good: false,
          title: "Different",
          text: [`At most ${difference.max_difference} of 255, ${number(difference.mean_difference)} on average.`, ...difference.notes].join(" "),
        };
      case "other size":
        return { good: false, title: "Of another size", text: "The pixels cannot be compared." };
      default:
        return { good: false, title: "Not comparable", text: difference.notes.join(" ") || "What the pixels were is not known." };
    }
  }

  const tell = (id) => listeners.forEach((listener) => listener(id));
  const step = (id, run, facts) => { Object.assign(run, facts); if (runs.get(id) === run) tell(id); };

  /* A seed is text until it is in the request: as a number of the page it would lose its last digits above 2**53. */
  const request = (changes, anyway) => JSON.stringify({ changes, anyway }).replace(/("seed":)"(-?\d+)"/, "$1$2");

  /* Queue it. `changes`: parameters that are to differ; `anyway`: also without the files that are missing. */
  async function start(id, changes = {}, anyway = false) {
    const run = { state: "queued", text: "Queued", changes, variation: Object.keys(changes).length > 0 };
    runs.set(id, run);
    tell(id);
    try {
      const { job, plan } = await call(`history/${id}/replay`, { method: "POST", body: request(changes, anyway), type: "application/json" });
      step(id, run, { job, notes: plan.notes });
      latent.status.hurry();
      await follow(id, run);
    } catch (error) {
      const missing = error.kind === "ModelNotFound";
      step(id, run, { state: "failed", text: error.message, advice: error.advice, missing });
    }
    return run;
  }

  async function follow(id, run) {
    for (let view = null; ; await sleep(document.hidden ? 3000 : 300)) {
      try { view = await look(run.job, view); } catch (error) {
        if (error.status) throw error;
        continue; // the connection comes back
      }
      if (view.state === "pending") step(id, run, { state: "queued", text: view.position > 0 ? `Queued, ${view.position} before it` : "Queued" });
      else if (view.state === "running") step(id, run, { state: "running", progress: view.progress, text: view.phase === "sampling" ? `Step ${view.step} of ${view.steps}` : view.line || "Starting" });
      if (!OVER.has(view.state)) continue;
      if (view.state !== "done") {
        step(id, run, { state: "failed", text: view.error?.message ?? `The job was ${view.state}.`, advice: view.error?.advice ?? "" });
        return;
      }
      break;
    }
    const child = await childOf(run.job);
    if (!child) { step(id, run, { state: "failed", text: "The picture was made, but it is not in the history.", advice: "See the outputs folder." }); return; }
    if (run.variation) { step(id, run, { state: "done", child, text: "Made" }); return; }
    const difference = await call(`history/${id}/difference/${child.id}`);
    step(id, run, { state: "done", child, difference });
  }

  /* The row is written with the file, a moment before or after the job's end is known here. */
  async function childOf(job) {
    for (let look = 0; look < LOOKS_FOR_CHILD; look++) {
      const { cards } = await call(`history?${new URLSearchParams({ q: `job:${job}`, limit: 1 })}`);
      if (cards.length) return cards[0];
      await sleep(150);
    }
    return null;
  }

  return { start, request, verdict, runs, on: (listener) => listeners.push(listener) };
})();
