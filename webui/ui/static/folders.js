/* A folder of pictures as one job of the server: its files are stored there first, then the job goes through them. So it
   goes on without this page, is seen in the queue from anywhere, and one that was stopped makes only what is missing. */
"use strict";
latent.folders = (() => {
  const { call, look, sleep, OVER } = latent.tools;
  const TYPES = /^image\/(png|jpeg|webp|avif)$/;
  const MAX = 2000; // pictures of one job (webui/operations.py)
  const AT_ONCE = 3; // uploads
  const byName = (a, b) => a.name.localeCompare(b.name, undefined, { numeric: true });

  /* The pictures among files, each { blob, name }, in the order of their names. */
  const picturesOf = (files) => [...files].filter(({ type }) => TYPES.test(type)).map((file) => ({ blob: file, name: file.webkitRelativePath || file.name })).sort(byName);

  /* All files of a drop, those in folders included. */
  async function filesOf(transfer) {
    const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean), found = [];
    const file = (entry) => new Promise((done, failed) => { entry.file(done, failed); });
    while (entries.length) {
      const entry = entries.shift();
      if (entry.isFile) { found.push(await file(entry)); continue; }
      const reader = entry.createReader();
      for (let more; (more = await new Promise((done, failed) => { reader.readEntries(done, failed); })).length;) entries.push(...more);
    }
    return found;
  }

  /* Store what the server does not have yet: each input gets its `reference`. `told(done)` after each; one that the server
     does not take is told by `refused(input, error)` and left out. Gives those that are there, until `stopped()`. */
  async function store(inputs, { told, refused, stopped }) {
    const waiting = [...inputs];
    let done = 0;
    const worker = async () => {
      for (let input; !stopped() && (input = waiting.shift());) {
        try { input.reference ??= (await call("inputs", { method: "POST", body: input.blob })).reference; } catch (error) { refused(input, error); }
        told(++done);
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
    return inputs.filter(({ reference }) => reference);
  }
  const sourcesOf = (inputs) => inputs.map(({ reference, name }) => ({ image: reference, name: name.slice(-255) }));

  /* A job to its end; `progress(view)` whenever something changed. */
  async function follow(id, progress) {
    for (let view = null; ; await sleep(document.hidden ? 3000 : 400)) {
      try { view = await look(id, view); } catch (error) {
        if (error.status) throw error;
        continue; // the connection comes back
      }
      progress(view);
      if (OVER.has(view.state)) return view;
    }
  }
  /* A stopped or lost job once more; what it has made it does not make again. Gives the new id. */
  const goOn = async (id) => (await call(`jobs/${id}/retry`, { method: "POST" })).id;
  /* What became of single pictures: the sentences that name them. */
  const problems = (view) => view.warnings.filter(({ code }) => code === "cell").map(({ text }) => text);

  return { MAX, picturesOf, filesOf, store, sourcesOf, follow, goOn, problems };
})();
