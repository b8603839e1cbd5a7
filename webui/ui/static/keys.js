/* Keys that work everywhere on the page, and the list of all keys. */
"use strict";
latent.keys = (() => {
  const { OVER, dialog, el, find } = latent.tools;
  const { runButtons, stage, tabs } = latent;
  /* What a tab is for. The others have no such button. */
  const MAIN = { txt2img: "#generate", img2img: "#generate", extras: "#extras-run", merge: ".merge [type=submit]" };

  const KEYS = [
    ["Ctrl + Enter", "Generate; in Extras and Merge, begin"], ["Esc", "Interrupt the running job; close what is open"],
    ["Ctrl + ↑ ↓", "More or less weight for the word or selection"], ["Alt + ← →", "Move the phrase, in the prompt"],
    ["↑ ↓", "Earlier prompts, at the ends of an empty or recalled prompt"],
    ["← →", "Previous and next picture, in the viewer"], ["↑ ↓ Enter", "Choose in a list"], ["/", "Search, in the history"],
    ["F", "Favourite: of the stage, the viewer or the history"], ["R", "Replay the picture and compare the pixels"],
    ["Space", "Select the picture; with Shift and arrows, many"], ["Delete", "Move to the trash"],
    ["Ctrl + Z", "Undo, in the history"], ["?", "Show these keys"],
  ];
  const keyHelp = dialog("keys", "Keys", el("h2", {}, "Keys"),
    el("dl", {}, ...KEYS.flatMap(([key, what]) => [el("dt", {}, ...key.split(/( \+ | )/).map((part) => (part.trim() && part !== " + " ? el("kbd", {}, part) : part))), el("dd", {}, what)])),
    el("form", { method: "dialog" }, el("button", { class: "quiet" }, "Close")));

  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing) return;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      event.stopPropagation();
      const main = MAIN[tabs.current];
      if (main && !find("dialog[open]")) find(main)?.click();
    } else if (event.key === "Escape" && !find("dialog[open]") && !document.activeElement?.closest?.("[role=combobox], [data-own-escape]")) {
      if (stage.view && !OVER.has(stage.view.state)) runButtons.act("interrupt");
    } else if (event.key === "?" && !event.target.closest?.("input, textarea, [contenteditable]")) {
      keyHelp.showModal();
    }
  }, true);
  return { show: () => keyHelp.showModal() };
})();
