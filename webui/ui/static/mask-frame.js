/* Outpainting: the frame around the picture. Each edge is dragged outwards by a handle, or moved by the arrow keys. */

const { el } = window.latent.tools;
const STEP = 8; // pixels; the size of a picture is a multiple of it
const MOST = 4096;
const SIDES = { left: { axis: "x", sign: -1 }, right: { axis: "x", sign: 1 }, top: { axis: "y", sign: -1 }, bottom: { axis: "y", sign: 1 } };

const rounded = (value) => Math.min(MOST, Math.max(0, Math.round(value / STEP) * STEP));

export function frameHandles(canvas) {
  const outline = el("div", { class: "frame-outline" });
  const element = el("div", { class: "frame-handles", hidden: true }, outline);
  let active = false;

  const set = (side, pixels, done) => {
    const frame = { ...canvas.frame, [side]: rounded(pixels) };
    if (frame[side] !== canvas.frame[side]) canvas.setFrame(frame);
    if (done) canvas.framed(frame);
  };

  const handles = Object.entries(SIDES).map(([side, { axis, sign }]) => {
    const handle = el("button", { type: "button", class: `frame-handle ${side}`, role: "slider", "aria-orientation": axis === "x" ? "horizontal" : "vertical", "aria-label": `Pixels added at the ${side}`, "aria-valuemin": 0, "aria-valuemax": MOST });
    let from = null;
    handle.addEventListener("pointerdown", (event) => {
      event.stopPropagation();
      handle.setPointerCapture(event.pointerId);
      from = { at: axis === "x" ? event.clientX : event.clientY, pixels: canvas.frame[side], scale: canvas.view.scale };
    });
    handle.addEventListener("pointermove", (event) => {
      event.stopPropagation();
      if (from) set(side, from.pixels + (sign * ((axis === "x" ? event.clientX : event.clientY) - from.at)) / from.scale, false);
    });
    const end = (event) => { event.stopPropagation(); if (from) { from = null; canvas.framed(canvas.frame); } };
    handle.addEventListener("pointerup", end);
    handle.addEventListener("pointercancel", end);
    handle.addEventListener("keydown", (event) => {
      const steps = { x: { ArrowLeft: -1, ArrowRight: 1 }, y: { ArrowUp: -1, ArrowDown: 1 } }[axis][event.key];
      if (!steps) return;
      event.preventDefault();
      event.stopPropagation();
      set(side, canvas.frame[side] + sign * steps * STEP * (event.shiftKey ? 8 : 1), true);
    });
    return [side, handle];
  });
  element.append(...handles.map(([, handle]) => handle));

  return {
    element,
    get active() { return active; },
    set active(on) { active = on; element.hidden = !on; this.place(); },
    place() {
      if (!active) return;
      const { left, top, right, bottom } = canvas.frame;
      const from = canvas.view.toPort({ x: -left, y: -top }), to = canvas.view.toPort({ x: canvas.width + right, y: canvas.height + bottom });
      Object.assign(element.style, { left: `${from.x}px`, top: `${from.y}px`, width: `${to.x - from.x}px`, height: `${to.y - from.y}px` });
      for (const [side, handle] of handles) {
        handle.setAttribute("aria-valuenow", String(canvas.frame[side]));
        handle.setAttribute("aria-valuetext", `${canvas.frame[side]} pixels`);
      }
    },
  };
}
