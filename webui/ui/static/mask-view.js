/* Where the picture lies in its window: zoom and pan, and from a point of the window to a pixel. Plain numbers. */

const CLOSEST = 32; // window pixels a picture pixel
const MARGIN = 48; // so much of the picture stays in the window
const AIR = 0.98; // of the window is used when all is shown

export class View {
  constructor() {
    Object.assign(this, { scale: 1, x: 0, y: 0, fitted: true, port: { width: 1, height: 1 } });
    this.bounds = { left: 0, top: 0, right: 1, bottom: 1 }; // what is shown, in picture pixels; an added frame is outside 0
  }

  get width() { return this.bounds.right - this.bounds.left; }
  get height() { return this.bounds.bottom - this.bounds.top; }
  get fitScale() { return AIR * Math.min(this.port.width / this.width, this.port.height / this.height); }

  fit() {
    this.scale = this.fitScale;
    this.x = (this.port.width - this.width * this.scale) / 2 - this.bounds.left * this.scale;
    this.y = (this.port.height - this.height * this.scale) / 2 - this.bounds.top * this.scale;
    this.fitted = true;
  }
  /* The window or what is shown has another size: a picture that was fitted stays so. */
  resize(port, bounds = this.bounds) {
    Object.assign(this, { port, bounds });
    this.fitted ? this.fit() : this.hold();
  }
  zoom(factor, at = { x: this.port.width / 2, y: this.port.height / 2 }) {
    const scale = Math.min(CLOSEST, Math.max(this.fitScale / 2, this.scale * factor)), by = scale / this.scale;
    this.x = at.x - (at.x - this.x) * by;
    this.y = at.y - (at.y - this.y) * by;
    this.scale = scale;
    this.fitted = false;
    this.hold();
  }
  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.fitted = false;
    this.hold();
  }
  hold() {
    const within = (value, port, low, high) => Math.min(port - MARGIN - low * this.scale, Math.max(MARGIN - high * this.scale, value));
    this.x = within(this.x, this.port.width, this.bounds.left, this.bounds.right);
    this.y = within(this.y, this.port.height, this.bounds.top, this.bounds.bottom);
  }

  toPicture({ x, y }) { return { x: (x - this.x) / this.scale, y: (y - this.y) / this.scale }; }
  toPort({ x, y }) { return { x: x * this.scale + this.x, y: y * this.scale + this.y }; }
  get transform() { return `translate(${this.x}px, ${this.y}px) scale(${this.scale})`; }
}
