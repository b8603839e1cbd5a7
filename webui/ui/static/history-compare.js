/* Two pictures side by side, or one over the other with a slider between them; and what they differ in. */
"use strict";
latent.history.compare = (() => {
  const { el, iconButton, call, complain, setText, dialog } = latent.tools;
  const { replay } = latent.history;
  const GROUPS = { parameter: "Parameters", model: "Models", environment: "Conditions" };

  const first = el("img", { alt: "" }), second = el("img", { alt: "" });
  const slider = el("input", { type: "range", min: 0, max: 1000, value: 500, "aria-label": "How much of the first picture is shown" });
  const stage = el("div", { class: "pair", "data-mode": "slider" }, el("div", { class: "over" }, second, first, el("i", { class: "edge", "aria-hidden": "true" }), slider));
  const words = el("p", { class: "verdict-line", role: "status" });
  const rows = el("div", { class: "rows" });
  const names = el("div", { class: "names" }, el("b", {}), el("b", {}));
  const mode = (name, label) => el("button", { type: "button", class: "quiet", "aria-pressed": "false", "data-mode": name, onclick: () => setMode(name) }, label);
  const modes = el("div", { class: "modes", role: "group", "aria-label": "View" }, mode("slider", "Slider"), mode("beside", "Side by side"));
  const everything = el("input", { type: "checkbox", id: "compare-everything" });
  let pair = [], before = null, asked = 0; // `asked`: how often rows were asked for; only the newest are drawn

  const box = dialog("history-compare", "Compare two pictures",
    el("div", { class: "top" }, el("h2", {}, "Compare"), modes, iconButton("Swap the pictures", "swap", () => show(pair[1], pair[0])), iconButton("Close", "close", () => box.close())),
    el("div", { class: "body" }, el("div", { class: "pictures" }, stage, names), el("div", { class: "told" }, words, el("label", { for: "compare-everything" }, everything, "Show what is equal, too"), rows)));
  box.addEventListener("close", () => before?.focus?.());

  const place = () => stage.style.setProperty("--at", `${slider.value / 10}%`);
  slider.addEventListener("input", place);
  everything.addEventListener("change", () => drawRows().catch(complain));

  function setMode(name) {
    stage.dataset.mode = name;
    modes.querySelectorAll("button").forEach((node) => node.setAttribute("aria-pressed", String(node.dataset.mode === name)));
    latent.tools.store.set("compare-mode", name);
  }

  async function drawRows() {
    const turn = ++asked, found = await call(`history/compare?ids=${pair.join()}&everything=${everything.checked}`);
    if (turn !== asked) return;
    const groups = Object.entries(GROUPS).map(([group, title]) => [title, found.filter((row) => row.group === group)]).filter(([, members]) => members.length);
    rows.replaceChildren(...groups.map(([title, members]) => el("table", {}, el("caption", {}, title),
      el("thead", { class: "off-screen" }, el("tr", {}, el("th", {}, "Name"), el("th", {}, "First"), el("th", {}, "Second"))),
      el("tbody", {}, ...members.map((row) => el("tr", { class: row.equal ? "equal" : "" }, el("th", { scope: "row" }, latentBoot.form.fields[row.name]?.label ?? row.name.replaceAll("_", " ")), ...row.values.map((value) => el("td", {}, value ?? "–"))))))));
    if (!groups.length) rows.replaceChildren(el("p", { class: "muted" }, "Nothing that is known of them differs."));
  }

  /* Open with two picture ids. */
  async function show(a, b) {
    if (!box.open) {
      before = document.activeElement;
      setMode(latent.tools.store.get("compare-mode", "slider"));
      box.showModal();
      slider.focus();
    }
    const mine = (pair = [a, b]);
    asked++;
    slider.value = 500;
    place();
    setText(words, "");
    rows.replaceChildren();
    try {
      const [one, two] = await Promise.all(pair.map((id) => call(`history/${id}`)));
      if (pair !== mine) return;
      [[first, one], [second, two]].forEach(([image, picture]) => {
        image.src = picture.file ?? picture.thumbnail;
        image.alt = picture.prompt || "Picture";
      });
      const { width, height } = one.width * one.height >= two.width * two.height ? one : two;
      stage.style.setProperty("--w", width);
      stage.style.setProperty("--h", height);
      [one, two].forEach((picture, i) => setText(names.children[i], [`Seed ${picture.seed ?? "not known"}`, `${picture.width} × ${picture.height}`, new Date(picture.created * 1000).toLocaleDateString()].join(" · ")));
      await drawRows();
      const told = replay.verdict(await call(`history/${a}/difference/${b}`));
      if (pair !== mine) return;
      words.className = `verdict-line ${told.good ? "good" : ""}`;
      words.replaceChildren(el("b", {}, told.title), " ", told.text);
    } catch (error) { complain(error); }
  }

  return { show, box };
})();
