/* The canvas: a picture to paint a mask or a colour sketch on, by mouse, pen, finger and keyboard. The picture is an <img>,
   the paint a canvas over it; what counts is the surface behind (mask-surface.js), at the picture's own size. */
import { Surface } from "./mask-surface.js";
import { View } from "./mask-view.js";
import { frameHandles } from "./mask-frame.js";
import { toolbar } from "./mask-tools.js";

const { el, setText } = window.latent.tools;
const SHOWN_PIXELS = 16 * 2 ** 20; // of the paint as it is shown; browsers refuse canvases far above that
const TINTS = [[232, 30, 99], [140, 12, 78]], OPACITY = 0.6; // of the mask: stripes that stand out on any picture
const STRIPES = 64; // of each, along the longer side
const SIZES = { least: 0.002, most: 0.6, step: 1.15, first: 0.08 }; // brush diameter, share of the longer side
const FEATHER = 0.004; // of the longer side, at each press
const LIGHTEST = 0.2; // share of the brush that a pen without pressure has
const MEASURE_AFTER = 250; // ms of rest until it is said how much is masked
const PEN_REST = 1500; // ms after a pen's last touch in which a finger only moves the picture: it may be a palm
const LITTLE_ENDIAN = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;

const tints = TINTS.map(([r, g, b]) => Uint32Array.from({ length: 256 }, (_, value) => {
  const a = Math.round(value * OPACITY);
  return (LITTLE_ENDIAN ? (a << 24) | (b << 16) | (g << 8) | r : (r << 24) | (g << 16) | (b << 8) | a) >>> 0;
}));

export class PaintCanvas {
  /* `changed(canvas)` after every step that is done, `framed(frame)` when an edge was dragged. */
  constructor({ changed, framed }) {
    Object.assign(this, { changed, framed, kind: "view", tool: "brush", brush: SIZES.first, softness: 0, colour: "#d23c3c", surface: null });
    this.view = new View();
    this.pointers = new Map();
    this.frame = { left: 0, top: 0, right: 0, bottom: 0 };
    this.image = el("img", { alt: "", draggable: "false" });
    this.paint = el("canvas", { "aria-hidden": "true" });
    this.sheet = el("div", { class: "paint-sheet" }, this.image, this.paint);
    this.ring = el("div", { class: "paint-ring", hidden: true });
    this.lasso = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    this.lasso.setAttribute("class", "paint-lasso");
    this.lasso.append(document.createElementNS("http://www.w3.org/2000/svg", "polyline"));
    this.port = el("div", { class: "paint-port", tabindex: 0, role: "application", "aria-label": "Canvas", "aria-describedby": "paint-keys" }, this.sheet, this.lasso, this.ring);
    this.handles = frameHandles(this);
    this.port.append(this.handles.element);
    this.facts = el("p", { class: "paint-facts muted" });
    this.told = el("p", { class: "off-screen", role: "status" });
    const keys = el("p", { class: "off-screen", id: "paint-keys" }, "Arrow keys move the brush, Enter sets it down or lifts it, B brush, E eraser, L lasso, G fill, square brackets size, I invert, S softer edge, Delete clear, plus and minus zoom.");
    this.tools = toolbar(this);
    this.element = el("div", { class: "paint" }, this.tools.element, this.port, el("div", { class: "paint-line" }, this.facts), this.told, keys);
    this.listen();
    new ResizeObserver(() => this.arrange()).observe(this.port);
  }

  // --- what is shown ---

  /* Show a picture that is loaded; what was painted is gone. */
  load(image, width, height) {
    this.image.src = image.src;
    Object.assign(this, { width, height });
    for (const side of ["width", "height"]) this.image[side] = this[side];
    this.port.style.setProperty("--pw", width);
    this.port.style.setProperty("--ph", height);
    this.view.fitted = true;
    this.reset();
  }
  /* "mask", "sketch" or "view". Masks and sketches are kept apart: each kind starts anew. */
  setKind(kind) {
    if (this.kind === kind) return;
    this.kind = kind;
    if (kind !== "sketch" && this.tool === "pick") this.tool = "brush";
    this.reset();
  }
  reset() {
    this.pen = null;
    this.share = 0;
    clearTimeout(this.measuring);
    this.element.dataset.kind = this.kind;
    this.surface = this.width && this.kind !== "view" ? new Surface(this.width, this.height, this.kind === "sketch" ? 4 : 1) : null;
    const scale = this.width ? Math.min(1, Math.sqrt(SHOWN_PIXELS / (this.width * this.height))) : 0;
    this.shown = scale;
    Object.assign(this.paint, this.surface ? { width: Math.ceil(this.width * scale), height: Math.ceil(this.height * scale) } : { width: 0, height: 0 });
    Object.assign(this.paint.style, { width: `${this.width}px`, height: `${this.height}px` });
    this.context = this.paint.getContext("2d");
    this.arrange();
    this.tools.update();
  }
  setFrame(frame) {
    this.frame = frame;
    this.arrange();
  }
  arrange() {
    if (!this.width) return;
    const { left, top, right, bottom } = this.frame;
    this.view.resize({ width: this.port.clientWidth || 1, height: this.port.clientHeight || 1 }, { left: -left, top: -top, right: this.width + right, bottom: this.height + bottom });
    this.place();
  }
  place() {
    const { view } = this;
    this.sheet.style.transform = view.transform;
    this.sheet.classList.toggle("near", view.scale * devicePixelRatio >= 3);
    this.handles.place();
    this.placeRing();
    const added = Object.values(this.frame).some(Boolean) ? ` + frame = ${view.width} × ${view.height}` : "";
    const masked = this.kind === "mask" && this.share ? ` · ${this.share < 0.01 ? "less than 1" : Math.round(100 * this.share)}% masked` : "";
    setText(this.facts, `${this.width} × ${this.height}${added}${masked} · ${Math.round(100 * view.scale)}%`);
  }
  placeRing() {
    const { at } = this;
    this.ring.hidden = !at || !this.surface || !["brush", "eraser"].includes(this.tool);
    if (this.ring.hidden) return;
    const place = this.view.toPort(at), size = Math.max(4, 2 * this.radius * this.view.scale);
    Object.assign(this.ring.style, { width: `${size}px`, height: `${size}px`, transform: `translate(${place.x - size / 2}px, ${place.y - size / 2}px)` });
  }

  /* Show a rectangle of the surface again, with the next frame of the screen. */
  show(rect) {
    if (!rect) return;
    const waits = this.dirty;
    this.dirty = waits ? { left: Math.min(waits.left, rect.left), top: Math.min(waits.top, rect.top), right: Math.max(waits.right, rect.right), bottom: Math.max(waits.bottom, rect.bottom) } : rect;
    if (!waits) requestAnimationFrame(() => { const all = this.dirty; this.dirty = null; this.draw(all); });
  }
  draw(rect) {
    const { surface, shown } = this;
    if (!surface || !rect) return;
    const left = Math.floor(rect.left * shown), top = Math.floor(rect.top * shown);
    const width = Math.min(this.paint.width, Math.ceil(rect.right * shown)) - left, height = Math.min(this.paint.height, Math.ceil(rect.bottom * shown)) - top;
    if (width <= 0 || height <= 0) return;
    const square = this.context.createImageData(width, height), pixels = new Uint32Array(square.data.buffer);
    const stripe = Math.max(1, Math.round(Math.max(this.paint.width, this.paint.height) / (2 * STRIPES)));
    const source = surface.channels === 1 ? surface.data : new Uint32Array(surface.data.buffer);
    for (let y = 0; y < height; y++) {
      const row = Math.min(this.height - 1, Math.floor((top + y) / shown)) * this.width;
      for (let x = 0; x < width; x++) {
        const value = source[row + (shown === 1 ? left + x : Math.min(this.width - 1, Math.floor((left + x) / shown)))];
        pixels[y * width + x] = surface.channels === 1 ? tints[Math.floor((left + x + top + y) / stripe) & 1][value] : value;
      }
    }
    this.context.putImageData(square, left, top);
  }

  // --- steps ---

  get radius() { return Math.max(0.5, (this.brush * Math.max(this.width, this.height)) / 2); }
  paintOf(erase = this.tool === "eraser") {
    const colour = [1, 3, 5].map((at) => parseInt(this.colour.slice(at, at + 2), 16));
    return { erase, softness: this.softness, colour };
  }
  setTool(tool) { this.lift(); this.tool = tool; this.tools.update(); this.placeRing(); }
  setBrush(share) { this.brush = Math.min(SIZES.most, Math.max(SIZES.least, share)); this.tools.update(); this.placeRing(); }
  resizeBrush(steps) { this.setBrush(this.brush * SIZES.step ** steps); }

  step(rect) {
    if (!rect) return;
    this.show(rect);
    this.finished();
  }
  finished() {
    this.changed(this); // first: what is painted is on its way while the rest is drawn
    this.tools.update();
    clearTimeout(this.measuring);
    this.measuring = setTimeout(() => { this.share = this.kind === "mask" ? this.surface.share : 0; this.place(); }, MEASURE_AFTER);
  }
  undo() { if (this.surface && !this.surface.stroke) this.step(this.surface.undo()); }
  redo() { if (this.surface && !this.surface.stroke) this.step(this.surface.redo()); }
  clear() { if (this.surface) this.step(this.surface.clear()); }
  invert() { if (this.kind === "mask" && this.surface) this.step(this.surface.invert()); }
  feather() { if (this.kind === "mask" && this.surface) this.step(this.surface.feather(Math.max(1, Math.round(Math.max(this.width, this.height) * FEATHER)))); }
  setMask(bytes) { if (this.kind === "mask") this.step(this.surface.put(bytes)); }

  /* The pen, finger or mouse button goes down, moves, and is lifted. `at`: { x, y } of the picture, pressure 0 to 1. */
  press(at, { erase = false, pressure = 1, straight = false } = {}) {
    if (!this.surface) return;
    if (this.tool === "fill") {
      if (this.kind === "mask") this.step(this.surface.flood(at.x, at.y, this.paintOf(erase)));
      else this.step(this.surface.stamp(this.surface.whole(), this.paintOf(erase), () => 255));
      return;
    }
    if (this.tool === "pick") { this.pick(at); return; }
    const dab = { ...at, radius: this.radius * pressure };
    this.pen = { tool: this.tool, last: dab, points: [at], erase };
    if (this.tool === "lasso") { this.drawLasso(); return; }
    this.surface.begin(this.paintOf(erase || this.tool === "eraser"));
    this.show(this.surface.line(straight && this.lastDab ? { ...this.lastDab, radius: dab.radius } : dab, dab));
  }
  move(at, pressure = 1) {
    const { pen } = this;
    if (!pen) return;
    if (pen.tool === "lasso") { pen.points.push(at); this.drawLasso(); return; }
    const dab = { ...at, radius: this.radius * pressure };
    this.show(this.surface.line(pen.last, dab));
    pen.last = dab;
  }
  lift() {
    const { pen } = this;
    if (!pen) return;
    this.pen = null;
    if (pen.tool === "lasso") {
      this.drawLasso();
      this.step(this.surface.polygon(pen.points, this.paintOf(pen.erase)));
      return;
    }
    this.lastDab = pen.last;
    this.surface.end();
    this.finished();
  }
  /* A second finger came: it was no stroke. */
  cancel() {
    const { pen } = this;
    this.pen = null;
    this.drawLasso();
    if (pen && pen.tool !== "lasso") this.show(this.surface.cancel());
  }
  drawLasso() {
    const points = this.pen?.tool === "lasso" ? this.pen.points : [];
    this.lasso.firstElementChild.setAttribute("points", points.map((p) => this.view.toPort(p)).map(({ x, y }) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" "));
  }
  pick({ x, y }) {
    const dot = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }), context = dot.getContext("2d");
    for (const layer of [this.image, this.paint]) {
      const ratio = layer === this.paint ? this.shown : (this.image.naturalWidth || this.width) / this.width;
      context.drawImage(layer, Math.floor(x * ratio), Math.floor(y * ratio), 1, 1, 0, 0, 1, 1);
    }
    const [r, g, b] = context.getImageData(0, 0, 1, 1).data;
    this.colour = `#${[r, g, b].map((c) => c.toString(16).padStart(2, "0")).join("")}`;
    this.setTool("brush");
  }

  // --- hands ---

  listen() {
    const { port } = this;
    port.addEventListener("pointerdown", (event) => this.down(event));
    port.addEventListener("pointermove", (event) => this.moved(event));
    port.addEventListener("pointerup", (event) => this.up(event));
    port.addEventListener("pointercancel", (event) => this.up(event, true));
    port.addEventListener("pointerleave", () => { if (!this.pen) { this.at = null; this.placeRing(); } });
    port.addEventListener("contextmenu", (event) => { if (this.surface) event.preventDefault(); });
    port.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.element.addEventListener("keydown", (event) => this.key(event));
    this.element.addEventListener("keyup", (event) => { if (event.key === " ") this.grab(false); });
    port.addEventListener("blur", () => { this.grab(false); if (this.pen && !this.pointers.size) this.lift(); });
  }
  place2port(event) {
    const box = this.port.getBoundingClientRect();
    return { x: event.clientX - box.left - this.port.clientLeft, y: event.clientY - box.top - this.port.clientTop };
  }
  grab(on) { this.grabbing = on; this.port.classList.toggle("grab", on || this.tool === "pan"); }
  pressureOf(event) { return event.pointerType === "pen" ? LIGHTEST + (1 - LIGHTEST) * event.pressure : 1; }

  down(event) {
    if (!this.width || event.target.closest("button")) return;
    this.port.focus({ preventScroll: true });
    this.port.setPointerCapture(event.pointerId);
    const place = this.place2port(event), isPen = event.pointerType === "pen";
    if (event.pointerType === "touch" && this.penDown) return; // the hand that holds the pen
    if (isPen) { // it takes over from a palm that came first
      if (this.pen) this.cancel();
      this.pointers.clear();
      this.penDown = true;
      this.penAt = event.timeStamp;
    }
    this.pointers.set(event.pointerId, place);
    if (this.pointers.size > 1) { this.cancel(); return; }
    const palm = event.pointerType === "touch" && event.timeStamp - (this.penAt ?? -Infinity) < PEN_REST;
    if (palm || event.button === 1 || this.grabbing || this.tool === "pan" || !this.surface) { event.preventDefault(); return; }
    const erase = event.button === 2 || event.buttons & 32; // the second button, or the pen's other end
    this.press(this.view.toPicture(place), { erase: Boolean(erase), pressure: this.pressureOf(event), straight: event.shiftKey });
  }
  moved(event) {
    const place = this.place2port(event), before = this.pointers.get(event.pointerId);
    if (event.pointerType !== "touch") { this.at = this.view.toPicture(place); this.placeRing(); }
    if (!before) return;
    if (this.pointers.size > 1) { this.pinch(event.pointerId, place); return; }
    if (this.pen) {
      const parts = event.getCoalescedEvents?.() ?? [];
      for (const part of parts.length ? parts : [event]) this.move(this.view.toPicture(this.place2port(part)), this.pressureOf(part));
    } else if (!["fill", "pick"].includes(this.tool) || this.grabbing) {
      this.view.pan(place.x - before.x, place.y - before.y);
      this.place();
    }
    this.pointers.set(event.pointerId, place);
  }
  pinch(id, place) {
    const [other] = [...this.pointers].filter(([key]) => key !== id).map(([, point]) => point), before = this.pointers.get(id);
    const distance = (a, b) => Math.max(1, Math.hypot(a.x - b.x, a.y - b.y)), middle = (a, b) => ({ x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 });
    const from = middle(before, other), to = middle(place, other);
    this.view.zoom(distance(place, other) / distance(before, other), from);
    this.view.pan(to.x - from.x, to.y - from.y);
    this.pointers.set(id, place);
    this.place();
  }
  up(event, cancelled = false) {
    if (event.pointerType === "pen") { this.penAt = event.timeStamp; this.penDown = false; }
    if (!this.pointers.delete(event.pointerId)) return;
    if (cancelled) this.cancel();
    else if (!this.pointers.size) this.lift();
  }
  wheel(event) {
    if (!this.width) return;
    if (event.altKey && this.surface) { event.preventDefault(); this.resizeBrush(event.deltaY < 0 ? 1 : -1); return; }
    if (!event.ctrlKey && !event.metaKey && !this.element.classList.contains("full")) return; // the page scrolls
    event.preventDefault();
    this.view.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.002)), this.place2port(event));
    this.place();
  }

  // --- keys ---

  key(event) {
    if (event.target.closest("input") || !this.width) return;
    const { key } = event, control = event.ctrlKey || event.metaKey;
    const act = control ? this.controlKeys()[event.shiftKey && key.toLowerCase() === "z" ? "y" : key.toLowerCase()] : !event.altKey && (this.arrow(event) ?? this.plainKeys()[key.length === 1 ? key.toLowerCase() : key]);
    if (!act || (event.target !== this.port && ["Enter", " "].includes(key))) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  }
  controlKeys() { return { z: () => this.undo(), y: () => this.redo() }; }
  plainKeys() {
    const zoom = (factor) => () => { this.view.zoom(factor); this.place(); };
    const moving = { "+": zoom(1.25), "=": zoom(1.25), "-": zoom(0.8), 0: () => { this.view.fit(); this.place(); }, " ": () => this.grab(true), h: () => this.setTool("pan"), f: () => this.tools.full() };
    if (this.element.classList.contains("full")) moving.Escape = () => this.tools.full(false);
    if (!this.surface) return moving;
    return {
      ...moving, b: () => this.setTool("brush"), e: () => this.setTool("eraser"), l: () => this.setTool("lasso"), g: () => this.setTool("fill"),
      "[": () => this.resizeBrush(-1), "]": () => this.resizeBrush(1), i: () => this.invert(), s: () => this.feather(), Delete: () => this.clear(), Enter: () => this.penKey(),
      ...(this.kind === "sketch" ? { c: () => this.setTool("pick") } : {}),
    };
  }
  arrow(event) {
    const [x, y] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [];
    if (x === undefined || event.target !== this.port) return undefined;
    return () => {
      if (!this.surface || this.tool === "pan") { this.view.pan(-40 * x, -40 * y); this.place(); return; }
      const step = event.shiftKey ? 1 : Math.max(1, this.radius / 2), from = this.at ?? { x: this.width / 2, y: this.height / 2 };
      this.at = { x: Math.min(this.width, Math.max(0, from.x + x * step)), y: Math.min(this.height, Math.max(0, from.y + y * step)) };
      this.move(this.at);
      this.placeRing();
    };
  }
  penKey() {
    this.at ??= { x: this.width / 2, y: this.height / 2 };
    this.placeRing();
    if (this.pen) { this.lift(); setText(this.told, "Lifted."); return; }
    this.press(this.at);
    setText(this.told, this.pen ? `Down at ${Math.round(this.at.x)}, ${Math.round(this.at.y)}.` : "");
  }
}
