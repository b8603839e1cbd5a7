/* Batch: every picture of a folder is a job of its own, with the form's values. The server's queue is fed a few at a time.

   What was made with the very same values is remembered in this browser, so a batch that was stopped, or whose page was
   closed, goes on where it was when the same folder is chosen again. */
const { latent } = window;
const { el, button, call, store, setText, sleep, plural, OVER } = latent.tools;
const AHEAD = 3; // jobs in the queue at a time
const REMEMBERED = 5000;
const TYPES = /^image\/(png|jpeg|webp|avif)$/;
const IGNORED = /^(mode$|init\.image$|inpaint\.mask$)/;

/* A short fingerprint of a text (FNV-1a, 2 x 32 bits): enough to tell batches apart. */
function fingerprint(text) {
  let a = 0x811c9dc5, b = 0x1000193;
  for (let i = 0; i < text.length; i++) {
    a = Math.imul(a ^ text.charCodeAt(i), 0x01000193);
    b = Math.imul(b ^ text.charCodeAt(i), 0x85ebca6b);
  }
  return (a >>> 0).toString(36) + (b >>> 0).toString(36);
}
export const batchKey = (file, values) => fingerprint(JSON.stringify([
  file.webkitRelativePath || file.name, file.size, file.lastModified, Object.entries(values).filter(([name]) => !IGNORED.test(name)).sort(),
]));

/* All files of a drop, those in folders included. */
async function filesOf(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean), found = [];
  const read = (entry) => new Promise((done, failed) => (entry.isFile ? entry.file(done, failed) : entry.createReader().readEntries(done, failed)));
  while (entries.length) {
    const entry = entries.shift();
    if (entry.isFile) { found.push(await read(entry)); continue; }
    const reader = entry.createReader();
    for (let more; (more = await new Promise((done, failed) => reader.readEntries(done, failed))).length;) entries.push(...more);
  }
  return found;
}

export function batch(host, { submit }) {
  const input = (props) => el("input", { type: "file", multiple: true, hidden: true, accept: "image/png,image/jpeg,image/webp,image/avif", ...props });
  const choose = input({}), folder = input({ webkitdirectory: true });
  const line = el("p", { role: "status" }), bar = el("div", { class: "line", hidden: true }, el("i")), problems = el("ul", { class: "batch-problems" });
  const start = el("button", { type: "button", class: "primary", onclick: () => run() }, "Start the batch");
  const stop = button("Stop", "stop", () => { stopped = true; });
  let files = [], stopped = true, running = false, done = 0, skipped = 0;

  const api = {
    current: "", // the reference that the next job starts from
    async add(transfer) { take(await filesOf(transfer)); },
  };
  const take = (list) => {
    if (running) return;
    files = list.filter(({ type }) => TYPES.test(type)).sort((a, b) => (a.webkitRelativePath || a.name).localeCompare(b.webkitRelativePath || b.name, undefined, { numeric: true }));
    done = skipped = 0;
    problems.replaceChildren();
    draw();
  };
  const made = () => store.get("batch-made", []);
  const remember = (key) => store.set("batch-made", [...made(), key].slice(-REMEMBERED));

  function draw() {
    const known = new Set(made()), left = running ? 0 : files.filter((file) => known.has(batchKey(file, latent.form.values))).length;
    const facts = [plural(files.length, "picture", "pictures")];
    if (running || done) facts.push(`${done} made`);
    if (skipped) facts.push(`${skipped} made before`);
    else if (left) facts.push(`${left} made before with these values, to be left out`);
    setText(line, files.length ? facts.join(" · ") : "Every picture of a folder becomes a job with the form's values.");
    bar.hidden = !running;
    bar.firstElementChild.style.transform = `scaleX(${files.length ? (done + skipped) / files.length : 0})`;
    start.disabled = running || !files.length;
    stop.hidden = !running;
  }

  /* One file: uploaded, submitted by the form's own button, followed to its end. */
  async function job(file) {
    api.current = (await call("inputs", { method: "POST", body: file })).reference;
    const answered = new Promise((found, refused) => {
      const forget = latent.stage.listen({ submitted: (id) => { forget(); found(id); }, refused: (error) => { forget(); refused(new Error(`${error.message} ${error.advice ?? ""}`)); } });
    });
    submit();
    return answered;
  }
  async function end(id) {
    for (;;) {
      const view = await call(`jobs/${id}`);
      if (OVER.has(view.state)) return view;
      await sleep(700);
    }
  }

  async function run() {
    running = true;
    stopped = false;
    done = skipped = 0;
    problems.replaceChildren();
    const values = { ...latent.form.values }, known = new Set(made()), open = new Set();
    draw();
    for (const file of files) {
      const key = batchKey(file, values);
      if (known.has(key)) { skipped++; draw(); continue; }
      while (open.size >= AHEAD) await Promise.race(open);
      if (stopped) break;
      try {
        const id = await job(file);
        const following = end(id).then((view) => {
          if (view.state !== "done") throw new Error(view.error?.message ?? `The job was ${view.state}.`);
          done++;
          remember(key);
        }).catch((error) => problem(file, error)).finally(() => { open.delete(following); draw(); });
        open.add(following);
      } catch (error) { problem(file, error); }
    }
    await Promise.allSettled(open);
    running = false;
    api.current = "";
    draw();
  }
  const problem = (file, error) => problems.append(el("li", { class: "bad" }, `${file.name}: ${error.message}`));

  for (const chooser of [choose, folder]) chooser.addEventListener("change", () => { take([...chooser.files]); chooser.value = ""; });
  host.append(el("div", { class: "drop-hint" }, line, el("div", { class: "row" }, button("Choose a folder", "folder", () => folder.click()), button("Choose pictures", "image", () => choose.click()), choose, folder)),
    bar, el("div", { class: "row" }, start, stop), problems);
  latent.form.listeners.push(() => { if (!running && files.length) draw(); });
  draw();
  return api;
}
