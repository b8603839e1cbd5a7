/* What is painted, as numbers: one byte a pixel for a mask, four for a colour sketch, always at the picture's own size.

   A stroke is a coverage (0 to 255) that only grows while it is drawn; a pixel is its old value moved towards the paint
   by its coverage, so that a stroke which crosses itself is no darker there. Undo keeps the squares that a step touched. */

export const TILE = 128; // pixels a side
const HISTORY_BYTES = 96 * 2 ** 20;
const CORE = 250; // a flood stops at the core of an outline, and fills its soft inner edge

/* One line of bytes, `step` apart, becomes the mean over `radius` to each side. Beyond an end that is the picture's own,
   the line goes on as it ends there, so that a mask up to the edge stays full at it. */
function mean(data, start, step, length, radius, first, last) {
  const line = new Uint8Array(length), span = 2 * radius + 1;
  for (let i = 0, at = start; i < length; i++, at += step) line[i] = data[at];
  const at = (i) => (i < 0 ? (first ? line[0] : 0) : i >= length ? (last ? line[length - 1] : 0) : line[i]);
  let sum = 0;
  for (let i = -radius; i <= radius; i++) sum += at(i);
  for (let i = 0, to = start; i < length; i++, to += step) {
    data[to] = sum / span;
    sum += at(i + radius + 1) - at(i - radius);
  }
}

export class Surface {
  constructor(width, height, channels = 1) {
    Object.assign(this, { width, height, channels, columns: Math.ceil(width / TILE) });
    this.data = new Uint8ClampedArray(width * height * channels);
    this.done = [];
    this.undone = [];
    this.stroke = null;
  }

  // --- strokes ---

  /* `paint`: { erase, softness: 0 hard to 1 soft from the centre, colour: [r, g, b] for a sketch }. */
  begin(paint) { this.stroke = { paint, tiles: new Map(), coverage: new Map() }; }

  /* Paint from one { x, y, radius } to the next; the rectangle that may have changed, or null. */
  line(from, to) {
    const reach = Math.max(from.radius, to.radius) + 1;
    const rect = this.clip({
      left: Math.floor(Math.min(from.x, to.x) - reach), top: Math.floor(Math.min(from.y, to.y) - reach),
      right: Math.ceil(Math.max(from.x, to.x) + reach), bottom: Math.ceil(Math.max(from.y, to.y) + reach),
    });
    if (rect) this.eachTile(rect, (index, area) => this.cover(index, area, from, to));
    return rect;
  }

  cover(index, area, from, to) {
    const { softness } = this.stroke.paint, { left, top } = this.origin(index);
    const coverage = this.coverageOf(index), mix = this.mixer(index);
    const dx = to.x - from.x, dy = to.y - from.y, length2 = dx * dx + dy * dy, grows = to.radius - from.radius;
    for (let y = area.top; y < area.bottom; y++) {
      const py = y + 0.5 - from.y;
      for (let x = area.left; x < area.right; x++) {
        const at = (y - top) * TILE + x - left;
        if (coverage[at] === 255) continue;
        const px = x + 0.5 - from.x;
        const t = length2 ? Math.min(1, Math.max(0, (px * dx + py * dy) / length2)) : 0;
        const ex = px - t * dx, ey = py - t * dy, radius = from.radius + t * grows;
        const outer = radius + 0.5, distance2 = ex * ex + ey * ey;
        if (distance2 >= outer * outer) continue;
        const share = Math.min(1, (outer - Math.sqrt(distance2)) / Math.max(1, radius * softness));
        const amount = Math.round(255 * (softness ? share * share * (3 - 2 * share) : share));
        if (amount > coverage[at]) { coverage[at] = amount; mix(x, y, amount); }
      }
    }
  }

  coverageOf(index) {
    const { tiles, coverage } = this.stroke;
    if (!coverage.has(index)) {
      coverage.set(index, new Uint8Array(TILE * TILE));
      tiles.set(index, this.copyTile(index));
    }
    return coverage.get(index);
  }

  /* Sets a pixel of a square that was touched: its value before the stroke, moved towards the paint by `amount`. */
  mixer(index) {
    const { data, width, channels } = this, { paint, tiles } = this.stroke, before = tiles.get(index), square = this.origin(index);
    const from = (x, y) => ((y - square.top) * square.width + x - square.left) * channels;
    if (channels === 1) {
      const target = paint.erase ? 0 : 255;
      return (x, y, amount) => { const old = before[from(x, y)]; data[y * width + x] = old + ((target - old) * amount) / 255; };
    }
    return (x, y, amount) => { // source over, colours not premultiplied
      const at = from(x, y), to = (y * width + x) * 4, kept = before[at + 3] * (1 - amount / 255);
      if (paint.erase) { data[to + 3] = kept; return; }
      const alpha = kept + amount;
      for (let c = 0; c < 3; c++) data[to + c] = (before[at + c] * kept + paint.colour[c] * amount) / alpha;
      data[to + 3] = alpha;
    };
  }

  end() {
    const { tiles } = this.stroke;
    this.stroke = null;
    this.remember(tiles);
  }
  /* Take a stroke back while it is drawn; the rectangle to show again. */
  cancel() {
    const { tiles } = this.stroke;
    this.stroke = null;
    return this.swap(tiles);
  }

  // --- whole areas ---

  /* The inside of a closed line of { x, y }, with smooth edges. */
  polygon(points, paint) {
    const rect = this.clip({
      left: Math.floor(Math.min(...points.map((p) => p.x))), top: Math.floor(Math.min(...points.map((p) => p.y))),
      right: Math.ceil(Math.max(...points.map((p) => p.x))), bottom: Math.ceil(Math.max(...points.map((p) => p.y))),
    });
    if (!rect || points.length < 3) return null;
    const width = rect.right - rect.left, height = rect.bottom - rect.top;
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.beginPath();
    for (const { x, y } of points) context.lineTo(x - rect.left, y - rect.top);
    context.fill();
    const inside = context.getImageData(0, 0, width, height).data;
    return this.stamp(rect, paint, (x, y) => inside[((y - rect.top) * width + x - rect.left) * 4 + 3]);
  }

  /* The area around a point that is enclosed by what is painted. For a mask. */
  flood(x, y, paint) {
    const { width, height, data } = this, start = Math.floor(y) * width + Math.floor(x);
    const target = paint.erase ? (value) => value > 255 - CORE : (value) => value < CORE;
    if (!(x >= 0 && y >= 0 && x < width && y < height) || !target(data[start])) return null;
    const inside = new Uint8Array(width * height), stack = [start];
    const rect = { left: width, top: height, right: 0, bottom: 0 };
    while (stack.length) {
      const at = stack.pop(), row = Math.floor(at / width), first = row * width;
      if (inside[at]) continue;
      let left = at, right = at + 1;
      while (left > first && !inside[left - 1] && target(data[left - 1])) left--;
      while (right < first + width && !inside[right] && target(data[right])) right++;
      inside.fill(1, left, right);
      Object.assign(rect, { left: Math.min(rect.left, left - first), right: Math.max(rect.right, right - first), top: Math.min(rect.top, row), bottom: Math.max(rect.bottom, row + 1) });
      for (const other of [row - 1, row + 1]) {
        if (other < 0 || other >= height) continue;
        for (let i = other * width + left - first, end = i + right - left, open = false; i < end; i++) {
          const here = !inside[i] && target(data[i]);
          if (here && !open) stack.push(i);
          open = here;
        }
      }
    }
    return this.stamp(rect, paint, (px, py) => inside[py * width + px] * 255);
  }

  /* One step that covers a rectangle by what `amount(x, y)` says, 0 to 255. */
  stamp(rect, paint, amount) {
    this.begin(paint);
    this.eachTile(rect, (index, area) => {
      this.coverageOf(index);
      const mix = this.mixer(index);
      for (let y = area.top; y < area.bottom; y++) for (let x = area.left; x < area.right; x++) {
        const share = amount(x, y);
        if (share) mix(x, y, share);
      }
    });
    this.end();
    return rect;
  }

  /* One step that writes every byte anew: `write(data)`. */
  rewrite(write) {
    const tiles = new Map();
    this.eachTile(this.whole(), (index) => tiles.set(index, this.copyTile(index)));
    write(this.data);
    this.remember(tiles);
    return this.whole();
  }
  clear() { return this.rewrite((data) => data.fill(0)); }
  invert() { return this.rewrite((data) => { for (let i = 0; i < data.length; i++) data[i] = 255 - data[i]; }); }
  /* A mask's edges made softer: two passes of the mean over `radius` pixels to each side, which is nearly a Gaussian. */
  feather(radius) {
    const { width, height } = this, rect = this.painted();
    if (!rect || radius < 1) return null;
    const reach = 2 * radius;
    const around = this.clip({ left: rect.left - reach, top: rect.top - reach, right: rect.right + reach, bottom: rect.bottom + reach });
    return this.rewrite((data) => {
      for (let pass = 0; pass < 2; pass++) {
        for (let y = around.top; y < around.bottom; y++) mean(data, y * width + around.left, 1, around.right - around.left, radius, around.left === 0, around.right === width);
        for (let x = around.left; x < around.right; x++) mean(data, around.top * width + x, width, around.bottom - around.top, radius, around.top === 0, around.bottom === height);
      }
    });
  }
  /* The rectangle around everything that is painted in a mask, null for nothing. */
  painted() {
    const { data, width, height } = this, rect = { left: width, top: height, right: 0, bottom: 0 };
    for (let y = 0; y < height; y++) {
      let left = y * width, right = left + width;
      const end = right;
      while (left < end && !data[left]) left++;
      if (left === end) continue;
      while (!data[right - 1]) right--;
      Object.assign(rect, { left: Math.min(rect.left, left - y * width), right: Math.max(rect.right, right - y * width), top: Math.min(rect.top, y), bottom: y + 1 });
    }
    return rect.right ? rect : null;
  }
  put(bytes) { return this.rewrite((data) => data.set(bytes)); }

  get empty() {
    const words = new Uint32Array(this.data.buffer, 0, this.data.length >> 2);
    for (let i = 0; i < words.length; i++) if (words[i]) return false;
    for (let i = words.length * 4; i < this.data.length; i++) if (this.data[i]) return false;
    return true;
  }

  /* How much of it is painted, 0 to 1. */
  get share() {
    let sum = 0;
    for (let i = 0; i < this.data.length; i++) sum += this.data[i];
    return sum / 255 / this.data.length;
  }

  // --- undo and redo ---

  get canUndo() { return this.done.length > 0; }
  get canRedo() { return this.undone.length > 0; }
  undo() { return this.step(this.done, this.undone); }
  redo() { return this.step(this.undone, this.done); }

  step(from, to) {
    const tiles = from.pop();
    if (!tiles) return null;
    to.push(tiles);
    return this.swap(tiles);
  }
  remember(tiles) {
    for (const [index, before] of tiles) if (this.sameTile(index, before)) tiles.delete(index);
    if (!tiles.size) return;
    this.done.push(tiles);
    this.undone = [];
    const size = (step) => step.size * TILE * TILE * this.channels;
    let total = this.done.reduce((sum, step) => sum + size(step), 0);
    while (total > HISTORY_BYTES && this.done.length > 1) total -= size(this.done.shift());
  }
  swap(tiles) {
    const rect = { left: this.width, top: this.height, right: 0, bottom: 0 };
    for (const [index, saved] of tiles) {
      const now = this.copyTile(index), place = this.origin(index);
      this.eachRow(index, (row, offset) => this.data.set(saved.subarray(row * place.width * this.channels, (row + 1) * place.width * this.channels), offset));
      tiles.set(index, now);
      rect.left = Math.min(rect.left, place.left);
      rect.top = Math.min(rect.top, place.top);
      rect.right = Math.max(rect.right, place.left + place.width);
      rect.bottom = Math.max(rect.bottom, place.top + place.height);
    }
    return rect;
  }

  // --- squares ---

  whole() { return { left: 0, top: 0, right: this.width, bottom: this.height }; }
  clip({ left, top, right, bottom }) {
    const rect = { left: Math.max(0, left), top: Math.max(0, top), right: Math.min(this.width, right), bottom: Math.min(this.height, bottom) };
    return rect.left < rect.right && rect.top < rect.bottom ? rect : null;
  }
  origin(index) {
    const left = (index % this.columns) * TILE, top = Math.floor(index / this.columns) * TILE;
    return { left, top, width: Math.min(TILE, this.width - left), height: Math.min(TILE, this.height - top) };
  }
  eachTile(rect, visit) {
    for (let row = Math.floor(rect.top / TILE); row * TILE < rect.bottom; row++) for (let column = Math.floor(rect.left / TILE); column * TILE < rect.right; column++) {
      visit(row * this.columns + column, {
        left: Math.max(rect.left, column * TILE), top: Math.max(rect.top, row * TILE),
        right: Math.min(rect.right, (column + 1) * TILE), bottom: Math.min(rect.bottom, (row + 1) * TILE),
      });
    }
  }
  eachRow(index, visit) {
    const { left, top, height } = this.origin(index);
    for (let row = 0; row < height; row++) visit(row, ((top + row) * this.width + left) * this.channels);
  }
  copyTile(index) {
    const { width, height } = this.origin(index), length = width * this.channels, copy = new Uint8ClampedArray(length * height);
    this.eachRow(index, (row, offset) => copy.set(this.data.subarray(offset, offset + length), row * length));
    return copy;
  }
  sameTile(index, copy) {
    const length = this.origin(index).width * this.channels;
    let same = true;
    this.eachRow(index, (row, offset) => {
      for (let i = 0; same && i < length; i++) same = this.data[offset + i] === copy[row * length + i];
    });
    return same;
  }
}
