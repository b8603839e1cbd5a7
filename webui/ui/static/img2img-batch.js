/* Batch: every picture of a folder, with the form's values, as one job. */
const { latent } = window;
const { able, el, button, call, complain, keepFocus, store, setText, plural, steer, OVER } = latent.tools;
const { folders, stage } = latent;
const KEPT = "batch-job"; // the job that is followed, also after a reload

export function batch(host, { submit }) {
  const input = (props) => el("input", { type: "file", multiple: true, hidden: true, accept: "image/png,image/jpeg,image/webp,image/avif", ...props });
  const choose = input({}), folder = input({ webkitdirectory: true });
  const line = el("p", { role: "status" }), bar = el("div", { class: "line", hidden: true }, el("i")), problems = el("ul", { class: "batch-problems" });
  const start = el("button", { type: "button", class: "primary", onclick: () => run() }, "Start the batch");
  const stop = button("Stop", "stop", () => { stopped = true; if (job) steer(job, "interrupt"); });
  const goOn = button("Go on", "recycle", () => again());
  const acts = el("div", { class: "row" }, start, stop, goOn);
  let files = [], stopped = false, stored = null, view = null, running = false, refused = [];
  let job = null; // the id of the one that is followed; known before the first view of it has come

  const api = {
    sources: [], // of the job that is being submitted
    async add(transfer) { take(await folders.filesOf(transfer)); },
  };
  const take = (list) => {
    if (running) return;
    files = folders.picturesOf(list);
    view = null;
    refused = [];
    store.set(KEPT, null);
    draw();
  };

  function draw() {
    const total = view ? view.sources : files.length, per = view ? view.params.batch_count * view.params.batch_size : 1;
    const done = view ? Math.ceil(view.images.length / per) : 0, failed = view ? folders.problems(view) : [];
    const facts = [];
    if (total) facts.push(plural(total, "picture", "pictures"));
    if (running && stored !== null && !view) facts.push(`${stored} sent`);
    if (view) facts.push({ pending: "waiting for its turn" }[view.state] ?? `${done} made`);
    if (failed.length) facts.push(`${failed.length} left out`);
    if (view && OVER.has(view.state) && view.state !== "done") facts.push({ lost: "the server was stopped", failed: view.error?.message ?? "failed" }[view.state] ?? "stopped");
    setText(line, facts.length ? facts.join(" · ") : "Every picture of a folder is drawn with the form's values, in one job.");
    bar.hidden = !running;
    bar.firstElementChild.style.transform = `scaleX(${view ? view.progress : files.length ? (stored ?? 0) / files.length : 0})`;
    able(start, !running && files.length > 0);
    keepFocus(acts, () => {
      stop.hidden = !running;
      goOn.hidden = running || !view || !["interrupted", "cancelled", "lost", "failed"].includes(view.state);
    });
    problems.replaceChildren(...[...refused, ...failed].map((text) => el("li", { class: "bad" }, text)));
  }

  /* The form's own button submits the job, with the stored pictures filled in. */
  async function submitted(sources) {
    api.sources = sources;
    const answered = new Promise((found, failed) => {
      const forget = stage.listen({ submitted: (id) => { forget(); found(id); }, refused: ({ message, advice }) => { forget(); failed(Object.assign(new Error(message), { advice })); } });
    });
    submit();
    return answered.finally(() => { api.sources = []; });
  }
  async function follow(id) {
    store.set(KEPT, id);
    job = id;
    if (stopped) steer(id, "interrupt"); // while the job was on its way to the queue
    view = await folders.follow(id, (seen) => { view = seen; draw(); });
    if (view.state === "done") store.set(KEPT, null);
  }
  async function working(work) {
    running = true;
    stopped = false;
    stored = null;
    draw();
    try { await work(); } catch (error) { complain(error); }
    running = false;
    job = null;
    draw();
  }
  const run = () => working(async () => {
    view = null;
    refused = [];
    const inputs = await folders.store(files, {
      told: (done) => { stored = done; draw(); }, stopped: () => stopped, refused: (file, error) => refused.push(`${file.name}: ${error.message}`),
    });
    const sources = folders.sourcesOf(inputs);
    for (let first = 0; first < sources.length && !stopped; first += folders.MAX) {
      view = job = null;
      await follow(await submitted(sources.slice(first, first + folders.MAX)));
    }
  });
  const again = () => working(async () => {
    const id = await folders.goOn(view.id);
    stage.submitted(id);
    await follow(id);
  });
  async function restore() {
    const id = store.get(KEPT, null), found = id && (await call(`jobs/${id}`).catch(() => null));
    if (!found || running || files.length) return;
    view = found;
    if (OVER.has(view.state)) draw();
    else working(() => follow(id));
  }

  for (const chooser of [choose, folder]) chooser.addEventListener("change", () => { take([...chooser.files]); chooser.value = ""; });
  host.append(el("div", { class: "drop-hint" }, line, el("div", { class: "row" }, button("Choose a folder", "folder", () => folder.click()), button("Choose pictures", "image", () => choose.click()), choose, folder)),
    bar, acts, problems);
  draw();
  restore();
  return api;
}
