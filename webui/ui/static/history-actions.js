/* What can be done to pictures of the history, each with its way back. Nothing here draws: whoever shows pictures
   listens to `marked` (something about them changed) and `moved` (they came or went). */
"use strict";
latent.history.actions = (() => {
  const { call, say, sayTaken, complain, plural, sleep, copyText, copyPicture, widgetValues } = latent.tools;
  const MOST_UNDO = 50;
  const LONGEST_ADDRESS = 8000; // characters; more ids than that go in a body
  const undone = [];
  const heard = { marked: [], moved: [] };

  const on = (what, listener) => heard[what].push(listener);
  const tell = (what, ...facts) => Promise.all(heard[what].map((listener) => listener(...facts)));
  const pictures = (n) => plural(n, "picture", "pictures");
  const post = (path, json) => call(path, { method: "POST", json });

  const remember = (entry) => {
    undone.push(entry);
    if (undone.length > MOST_UNDO) undone.shift();
    return entry;
  };
  const forget = (entry) => { if (undone.includes(entry)) undone.splice(undone.indexOf(entry), 1); };
  async function undo(entry = undone.findLast((one) => !one.busy)) {
    if (!entry) { say("There is nothing to undo."); return; }
    if (entry.busy || !undone.includes(entry)) return;
    entry.busy = true;
    try {
      await entry.run();
      forget(entry);
    } catch (error) { complain(error); } // it can be tried again
    entry.busy = false;
  }
  const offer = (text, entry) => say(text, "", { label: "Undo", run: () => undo(entry) });

  // --- marks: the page shows them at once, and what the server has when it refuses ---

  const AGAIN = 2000; // ms
  const doubted = new Set(); // ids of which the page may show what the server does not have
  let marking = 0, asking = false;

  /* Gives the ids of those that were not so before: only they are changed back. */
  async function setFavourite(ids, favourite) {
    marking++;
    tell("marked", ids, { favourite });
    try { return (await post("history/favourite", { ids, favourite })).ids; } catch (error) {
      ids.forEach((id) => doubted.add(id));
      throw error;
    } finally {
      marking--;
      readDoubted();
    }
  }
  /* Not while a mark is on its way: the answer may be older than that. */
  async function readDoubted() {
    if (asking) return;
    asking = true;
    while (doubted.size && !marking) {
      const ids = [...doubted];
      try {
        const lists = await Promise.all([false, true].map((trash) => call(`history/ids?q=fav:yes&trash=${trash}`)));
        if (marking) break;
        const favourites = new Set(lists.flatMap((list) => list.ids));
        ids.forEach((id) => doubted.delete(id));
        for (const favourite of [true, false]) tell("marked", ids.filter((id) => favourites.has(id) === favourite), { favourite });
      } catch { await sleep(AGAIN); } // it was told that the server does not answer
    }
    asking = false;
  }
  async function favourite(ids, value) {
    const done = setFavourite(ids, value);
    const entry = remember({ run: async () => { const changed = await done.catch(() => []); if (changed.length) await setFavourite(changed, !value); } });
    try {
      if (!(await done).length) forget(entry);
      if (ids.length > 1) say(value ? `${pictures(ids.length)} marked as favourites.` : `${pictures(ids.length)} no longer favourites.`);
    } catch (error) { forget(entry); complain(error); }
  }

  async function changeTags(ids, add, remove) {
    const changed = await post("history/tags", { ids, add, remove });
    await tell("marked", ids, { tags: true });
    return changed;
  }
  /* Whether it was done. */
  async function tag(ids, add = [], remove = []) {
    const backOf = ({ added, removed }) => [...Object.entries(added).map(([name, of]) => [of, [], [name]]), ...Object.entries(removed).map(([name, of]) => [of, [name], []])].filter(([of]) => of.length);
    const back = changeTags(ids, add, remove).then(backOf);
    const entry = remember({ run: async () => { for (const change of await back.catch(() => [])) await changeTags(...change); } });
    try {
      if (!(await back).length) forget(entry);
      return true;
    } catch (error) { forget(entry); complain(error); }
    return false;
  }

  async function saveNotes(id, notes) { return post(`history/${id}/notes`, { notes }); }

  // --- coming and going ---

  async function send(path, ids, words, back) {
    tell("marked", ids, { leaving: true });
    try {
      const answer = await post(path, { ids });
      await tell("moved", answer.ids, path.endsWith("delete") ? "deleted" : "restored");
      if (back && answer.ids.length) offer(`${pictures(answer.ids.length)} ${words}.`, remember({ run: () => back(answer.ids) }));
      else say(`${pictures(answer.ids.length)} ${words}.`);
    } catch (error) {
      await tell("moved", ids, "unsure"); // some may have gone before the one that could not
      throw error;
    }
  }
  const trash = (ids) => send("history/delete", ids, "moved to the trash", (gone) => send("history/restore", gone, "restored", null)).catch(complain);
  const restore = (ids) => send("history/restore", ids, "restored", (back) => send("history/delete", back, "moved to the trash", null)).catch(complain);
  async function purge(ids) { // null: all of the trash
    try {
      const { changed } = await post("history/trash/empty", { ids });
      await tell("moved", ids ?? [], "purged");
      say(`${pictures(changed)} deleted for good.`);
    } catch (error) { complain(error); }
  }

  // --- out ---

  function save(href, name) {
    const link = document.createElement("a");
    Object.assign(link, { href, download: name });
    document.body.append(link);
    link.click();
    link.remove();
  }
  async function download(ids) {
    if (ids.length === 1) { save(`history/${ids[0]}/file?download=true`, ""); return; }
    const list = ids.join(",");
    say(`Packing ${pictures(ids.length)}.`);
    if (list.length < LONGEST_ADDRESS) { save(`history/zip?ids=${list}`, "pictures.zip"); return; }
    try {
      const response = await fetch("history/zip", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ ids }) });
      if (!response.ok) throw new Error();
      const address = URL.createObjectURL(await response.blob());
      save(address, "pictures.zip");
      setTimeout(() => URL.revokeObjectURL(address), 60_000);
    } catch { say("The archive could not be made. Choose fewer pictures.", "bad"); }
  }

  /* A seed above 2**53 has lost its last digits as a number; the text in the file has them all. */
  const seedText = (picture) => (Number.isSafeInteger(picture.seed) ? String(picture.seed) : picture.infotext.match(/(?:^|[,\n] ?)Seed: (\d+)/)?.[1] ?? String(picture.seed));
  const linkTo = (id) => new URL(`?picture=${id}`, location.origin + location.pathname).href;
  const copyLink = (id) => copyText(linkTo(id), "Link");
  const copyImage = (picture) => copyPicture({ src: picture.file });

  /* Every field that the picture knows, into the form. */
  async function use(picture) {
    const known = picture.params ?? Object.fromEntries(
      ["prompt", "negative_prompt", "seed", "steps", "cfg_scale", "sampler", "schedule", "width", "height"].map((name) => [name, picture[name]]));
    const values = widgetValues(known);
    latent.tabs.goFor(values);
    scrollTo({ top: 0 });
    const notes = await latent.form.set({ ...values, ...(picture.seed === null ? {} : { seed: seedText(picture) }) }, true);
    sayTaken(`${notes.length ? "The" : "All"} fields were taken from the picture.`, notes);
  }

  return { on, undo, favourite, tag, saveNotes, trash, restore, purge, download, linkTo, copyLink, copyImage, use, pictures, seedText };
})();
