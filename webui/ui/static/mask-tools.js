/* The canvas's tool bar. */

const { able, el, iconButton } = window.latent.tools;
const TOOLS = [
  ["brush", "Brush (B)", "brush"], ["eraser", "Eraser (E)", "eraser"], ["lasso", "Lasso (L)", "lasso"],
  ["fill", "Fill an enclosed area (G)", "fill"], ["pick", "Pick a colour (C)", "picker"], ["pan", "Move the picture (H, or hold Space)", "hand"],
];
const STEPS = 100; // of the size slider, which is logarithmic
const SHARES = [0.002, 0.6];
const toShare = (value) => SHARES[0] * (SHARES[1] / SHARES[0]) ** (value / STEPS);
const toValue = (share) => Math.round((STEPS * Math.log(share / SHARES[0])) / Math.log(SHARES[1] / SHARES[0]));

export function toolbar(canvas) {
  const tools = TOOLS.map(([name, label, icon]) => [name, iconButton(label, icon, () => canvas.setTool(name), { "aria-pressed": "false", "data-tool": name })]);
  const slider = (label, props) => el("input", { type: "range", "aria-label": label, title: label, ...props });
  const size = slider("Brush size ([ and ])", { min: 0, max: STEPS, step: 1 });
  const soft = slider("Soft edge", { min: 0, max: 100, step: 5, value: 0 });
  const colour = el("input", { type: "color", "aria-label": "Colour", title: "Colour", value: canvas.colour });
  size.addEventListener("input", () => canvas.setBrush(toShare(Number(size.value))));
  soft.addEventListener("input", () => { canvas.softness = Number(soft.value) / 100; soft.setAttribute("aria-valuetext", `${soft.value} percent`); });
  colour.addEventListener("input", () => { canvas.colour = colour.value; });
  const zoom = (factor) => () => { factor ? canvas.view.zoom(factor) : canvas.view.fit(); canvas.place(); };
  const acts = {
    undo: iconButton("Undo (Ctrl + Z)", "undo", () => canvas.undo()),
    redo: iconButton("Redo (Ctrl + Shift + Z)", "redo", () => canvas.redo()),
    invert: iconButton("Invert the mask (I)", "contrast", () => canvas.invert()),
    feather: iconButton("Soften the mask's edge (S)", "feather", () => canvas.feather()),
    clear: iconButton("Clear (Delete)", "trash", () => canvas.clear()),
  };
  const full = iconButton("Full window (F)", "expand", () => api.full());
  const group = (label, name, ...children) => el("div", { class: `paint-group ${name}`, role: "group", "aria-label": label }, ...children);
  const element = el("div", { class: "paint-tools", role: "toolbar", "aria-label": "Canvas tools" },
    group("Tools", "tools", ...tools.map(([, button]) => button)),
    group("Brush", "brush", el("label", {}, el("span", {}, "Size"), size), el("label", {}, el("span", {}, "Soft"), soft), colour),
    group("Steps", "steps", ...Object.values(acts)),
    group("View", "zoom", iconButton("Zoom out (-)", "minus", zoom(0.8)), iconButton("Zoom in (+)", "plus", zoom(1.25)), iconButton("Show all (0)", "fit", zoom(0)), full));

  const api = {
    element,
    update() {
      for (const [name, button] of tools) button.setAttribute("aria-pressed", String(canvas.tool === name));
      size.value = String(toValue(canvas.brush));
      if (canvas.width) size.setAttribute("aria-valuetext", `${Math.round(canvas.radius * 2)} pixels`);
      colour.value = canvas.colour;
      able(acts.undo, Boolean(canvas.surface?.canUndo));
      able(acts.redo, Boolean(canvas.surface?.canRedo));
      canvas.grab?.(false);
      canvas.port.dataset.tool = canvas.surface ? canvas.tool : "pan";
    },
    /* The canvas over the whole window, and back. */
    full(on = !canvas.element.classList.contains("full")) {
      canvas.element.classList.toggle("full", on);
      canvas.element.toggleAttribute("data-own-escape", on);
      document.body.classList.toggle("has-full", on);
      full.setAttribute("aria-pressed", String(on));
      canvas.view.fit();
      canvas.arrange();
      canvas.port.focus({ preventScroll: true });
    },
  };
  return api;
}
