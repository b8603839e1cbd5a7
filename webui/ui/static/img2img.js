/* The picture that img2img starts from: chosen, dropped, pasted or sent here; its mask or sketch; batches of files.

   What counts is kept in the form: the references that the server gave for the picture and the mask. So they are there
   again after a reload and on another device, and a job is small. */
import { PaintCanvas } from "./mask-canvas.js";
import { batch } from "./img2img-batch.js";
import { alphaOf, greyPng, maskFromAlpha, maskFromPicture } from "./mask-png.js";

const { latent } = window;
const { el, button, call, find, say, complain, setText, sleep, store, isShown } = latent.tools;
const { form, tabs, send } = latent;

const MODES = [["img2img", "img2img"], ["sketch", "Sketch"], ["inpaint", "Inpaint"], ["inpaint sketch", "Inpaint sketch"], ["inpaint upload", "Upload mask"], ["batch", "Batch"]];
const MASKED = ["inpaint", "inpaint sketch", "inpaint upload"];
const KINDS = { sketch: "sketch", inpaint: "mask", "inpaint sketch": "sketch", "inpaint upload": "mask" };
const SIDE = 8, REST = 600; // ms until what was painted is kept in the form
const MASK_TRIES = 8, MASK_AGAIN = 500; // how often a mask is asked for, and ms between
const TYPES = /^image\/(png|jpeg|webp|avif)$/;
const root = document.documentElement;

let mode = tabs.mode, picture = null, canvas = null, parts = {}, files = null;
let sending = Promise.resolve(null), sent = { surface: null, reference: "" }, turn = 0, resting = 0;
let restoring = null; // the mask that is on its way from the server
let chosen = 0; // counts the pictures that were chosen: an earlier one that comes late is not shown

// --- the picture ---

const loaded = (src) => new Promise((done, failed) => {
  const image = new Image();
  image.onload = () => done(image);
  image.onerror = () => failed(new Error("The picture could not be shown."));
  image.src = src;
});

/* Whether it is shown: not where another one was chosen meanwhile, nor where it is not `wanted` any more. `values()` go
   into the form in the same tick, so that whoever hears of the form never finds the one without the other. */
async function show(found, { values = null, wanted = () => true } = {}) {
  const mine = chosen, image = await loaded(`inputs/${found.reference}`);
  if (mine !== chosen || !wanted()) return false;
  picture = { ...found, image };
  sent = { surface: null, reference: "" };
  canvas.load(image, found.width, found.height);
  canvas.image.alt = "The picture to start from";
  canvas.setFrame(frameOf(form.values));
  root.dataset.picture = "true";
  const chosenHere = parts.drop.contains(document.activeElement);
  parts.drop.hidden = true;
  parts.canvas.hidden = false;
  canvas.arrange();
  const filled = values && form.set({ ...values(), "init.image": found.reference, "inpaint.mask": "" }, true);
  update();
  if (chosenHere) parts.change.focus({ preventScroll: true }); // it stands for the field that is hidden now
  await filled;
  return mine === chosen;
}

function putAway() {
  chosen++;
  picture = null;
  sent = { surface: null, reference: "" };
  delete root.dataset.picture;
  parts.drop.hidden = false;
  parts.canvas.hidden = true;
  update();
}
function forget() {
  putAway();
  return form.set({ "init.image": "", "inpaint.mask": "" }, true);
}

/* The size to draw at: the picture's, or for one far above what the checkpoint was made for, its native area. No side is
   longer than the form can hold; both are made smaller by the same factor. */
export function fittingSize({ width, height }, native) {
  const area = width * height, most = form.spec.fields.width.high;
  const scale = Math.min(area > 4 * native * native ? Math.sqrt((native * native) / area) : 1, most / Math.max(width, height));
  const side = (length) => Math.max(64, Math.round((length * scale) / SIDE) * SIDE);
  return { width: side(width), height: side(height), reduced: scale < 1 };
}
function sizeFor(found, native = latent.models.nativeSize(form.latest("checkpoint"))) {
  const { width, height, reduced } = fittingSize(found, native);
  return { width, height, ...(reduced && MASKED.includes(mode) ? { "inpaint.only_masked": true } : {}) };
}

async function take(blob) {
  if (!TYPES.test(blob.type)) { say("That is no PNG, JPEG, WEBP or AVIF picture.", "bad"); return; }
  parts.drop.classList.add("busy");
  const mine = ++chosen;
  try {
    const found = await call("inputs", { method: "POST", body: blob });
    if (mine === chosen) await show(found, { values: () => sizeFor(found) });
  } catch (error) { complain(error); }
  parts.drop.classList.remove("busy");
}

/* A picture from elsewhere in the page, with the parameters that made it. */
const taker = (wanted) => async (found, from, parameters) => {
  tabs.go("img2img");
  setMode(wanted);
  chosen++;
  await show(found, { values: () => ({ ...parameters, mode, ...sizeFor(found, from.params ? Infinity : undefined) }) });
};

// --- the mask and the sketch on their way to the server ---

/* Send what is painted; the newest wins. Resolves to its reference, "" when nothing is painted. */
function upload() {
  const { surface } = canvas, mine = ++turn;
  if (!surface || surface.empty) { sent = { surface, reference: "" }; return (sending = Promise.resolve("")); }
  sending = painting(surface).then(async (bodies) => {
    if (mine !== turn) return sending;
    const [{ reference }, mask] = await Promise.all(bodies.map((body) => call("inputs", { method: "POST", body })));
    if (mine !== turn) return sending;
    sent = { surface, reference, mask: mask?.reference };
    return reference;
  });
  sending.catch(complain);
  return sending;
}
/* What is painted, as files: the mask; or the picture with the sketch on it, and for inpainting where it was painted. */
async function painting({ data, width, height }) {
  if (canvas.kind === "mask") return [await greyPng(data, width, height)];
  return Promise.all([sketched(), ...(MASKED.includes(mode) ? [greyPng(alphaOf(data), width, height)] : [])]);
}
async function sketched() {
  const sheet = Object.assign(document.createElement("canvas"), { width: picture.width, height: picture.height }), context = sheet.getContext("2d");
  const layer = Object.assign(document.createElement("canvas"), { width: picture.width, height: picture.height });
  layer.getContext("2d").putImageData(new ImageData(canvas.surface.data, picture.width, picture.height), 0, 0);
  context.drawImage(picture.image, 0, 0, picture.width, picture.height);
  context.drawImage(layer, 0, 0);
  return new Promise((done) => sheet.toBlob(done, "image/png"));
}
function painted() {
  upload();
  clearTimeout(resting);
  if (canvas.kind === "mask") resting = setTimeout(keepMask, REST);
  update();
}
const keepMask = () => sending.then((reference) => form.set({ "inpaint.mask": reference }, true), () => {}); // told already

/* The mask that the form names. What is painted while it comes is painted on it; where another picture or another kind
   of painting was chosen meanwhile, it is not shown. Only a mask that the server has no more is forgotten. */
function restoreMask(reference) {
  if (!picture || canvas.kind !== "mask" || sent.reference === reference) return undefined;
  sent = { surface: canvas.surface, reference };
  sending = Promise.resolve(reference);
  return (restoring = restored(reference));
}
async function restored(reference) {
  const { surface } = canvas, mine = chosen, before = turn;
  const gone = () => canvas.surface !== surface || mine !== chosen;
  const image = await readMask(reference, gone);
  while (surface.stroke && !gone()) await sleep(20); // it is put below whole strokes
  if (gone() || !image) return;
  const mask = maskFromPicture(image, picture.width, picture.height), meanwhile = turn !== before;
  surface.put(meanwhile ? mask.map((value, at) => Math.max(value, surface.data[at])) : mask);
  canvas.show(surface.whole());
  canvas.tools.update();
  meanwhile ? painted() : update();
}
async function readMask(reference, gone) {
  for (let tries = 0; tries < MASK_TRIES && !gone(); tries++) {
    if (tries) await sleep(MASK_AGAIN);
    const answer = await fetch(`inputs/${reference}`).catch(() => null);
    if (gone()) return null;
    if (answer?.status === 404) {
      if (sent.reference === reference) { sent = { surface: canvas.surface, reference: "" }; sending = Promise.resolve(""); }
      if (form.latest("inpaint.mask") === reference) form.set({ "inpaint.mask": "" }, true);
      return null;
    }
    const address = answer?.ok && URL.createObjectURL(await answer.blob().catch(() => new Blob()));
    try { if (address) return await loaded(address); } catch { /* it was cut: once more */ } finally { URL.revokeObjectURL(address); }
  }
  if (!gone()) say("The mask could not be read. It is still used; switch to another mode and back to see it.", "bad");
  return null;
}
async function takeMask(file) {
  if (!picture) { say("Choose the picture first, then its mask.", "bad"); return; }
  try {
    const address = URL.createObjectURL(file);
    canvas.setMask(maskFromPicture(await loaded(address), picture.width, picture.height));
    URL.revokeObjectURL(address);
  } catch { say("The mask could not be read. It must be a PNG, JPEG, WEBP or AVIF picture: white is drawn.", "bad"); }
}
function takeAlpha() {
  const mask = maskFromAlpha(picture.image, picture.width, picture.height);
  mask ? canvas.setMask(mask) : say("Nothing in this picture is transparent.");
}

/* As a job is submitted: what is painted has arrived, and the mode is that of the tab. */
async function complete() {
  if (tabs.making !== "img2img") return {};
  if (mode === "batch") return { "init.image": "", "inpaint.mask": "", sources: JSON.stringify(files.sources) };
  const filled = { "init.image": picture?.reference ?? "" };
  if (!picture) return { ...filled, "inpaint.mask": "" };
  await restoring;
  const reference = await arrived();
  if (canvas?.kind === "sketch" && reference) filled["init.image"] = reference;
  if (MASKED.includes(mode)) filled["inpaint.mask"] = (canvas?.kind === "sketch" ? sent.mask : reference) ?? "";
  return filled;
}
/* The reference of all that is painted. What did not arrive is sent once more; without it no job is made. */
async function arrived() {
  if (!canvas?.surface || sent.surface === canvas.surface) {
    try { return await sending; } catch { /* once more */ }
  }
  try {
    const reference = await upload();
    if (canvas.kind === "mask") keepMask();
    return reference;
  } catch (error) {
    throw Object.assign(new Error("What is painted did not reach the server, so no job was made."), { advice: error.advice || error.message });
  }
}

// --- modes ---

export function setMode(wanted) {
  mode = tabs.mode = wanted;
  store.set("img2img-mode", mode);
  if (tabs.making === "img2img") root.dataset.mode = mode;
  if (!canvas) return;
  const before = canvas.kind;
  canvas.setKind(KINDS[mode] ?? "view");
  canvas.handles.active = MASKED.includes(mode);
  canvas.setFrame(MASKED.includes(mode) ? frameOf(form.values) : frameOf({}));
  if (before !== canvas.kind) { turn++; sending = Promise.resolve(""); sent = { surface: canvas.surface, reference: "" }; }
  else if (canvas.kind === "sketch" && !canvas.surface?.empty) upload(); // the same strokes, for another use
  if (canvas.kind === "mask" && before !== "mask" && form.values["inpaint.mask"]) restoreMask(form.values["inpaint.mask"]);
  update();
}

function chooseMode(wanted) {
  setMode(wanted);
  form.set({ mode }, true);
}

const frameOf = (values) => Object.fromEntries(["left", "top", "right", "bottom"].map((side) => [side, values[`init.frame.${side}`] || 0]));

function update() {
  for (const radio of parts.modes.querySelectorAll("[role=radio]")) {
    radio.setAttribute("aria-checked", String(radio.dataset.mode === mode));
    radio.tabIndex = radio.dataset.mode === mode ? 0 : -1;
  }
  const isBatch = mode === "batch";
  parts.batch.hidden = !isBatch;
  parts.drop.hidden = isBatch || Boolean(picture);
  parts.canvas.hidden = isBatch || !picture;
  parts.mask.hidden = KINDS[mode] !== "mask" || !picture;
  parts.alpha.hidden = !picture?.has_alpha;
  for (const act of [parts.change, parts.remove]) act.hidden = isBatch || !picture;
  setText(parts.note, note());
}
function note() {
  if (!picture || mode === "batch") return "";
  const { width, height } = form.values, frame = canvas.frame, masked = MASKED.includes(mode);
  const whole = { width: picture.width + frame.left + frame.right, height: picture.height + frame.top + frame.bottom };
  if (masked && !canvas.surface?.canUndo && !sent.reference && !picture.has_alpha && whole.width === picture.width && whole.height === picture.height) return "Paint over what is to be drawn anew, or drag the picture's edges outwards to outpaint.";
  if (masked && form.values["inpaint.only_masked"]) return `The masked part is drawn at ${width} × ${height} and put back into ${whole.width} × ${whole.height}.`;
  return whole.width === width && whole.height === height ? "" : `Drawn at ${width} × ${height}.`;
}

// --- the piece of page ---

function mount(element) {
  for (const name of ["drop", "canvas", "mask", "batch", "note"]) parts[name] = find(`[data-part=${name}]`, element);
  parts.modes = find(".start-modes", element);
  parts.modes.append(...MODES.map(([id, label]) => el("button", { type: "button", role: "radio", class: "quiet", "data-mode": id, onclick: () => chooseMode(id) }, label)));
  parts.modes.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const at = MODES.findIndex(([id]) => id === mode);
    chooseMode(MODES[(at + step + MODES.length) % MODES.length][0]);
    find("[aria-checked=true]", parts.modes).focus();
  });
  const input = find("input[type=file]", parts.drop), maskInput = el("input", { type: "file", accept: "image/png,image/jpeg,image/webp,image/avif", hidden: true });
  input.addEventListener("change", () => { if (input.files[0]) take(input.files[0]); input.value = ""; });
  maskInput.addEventListener("change", () => { if (maskInput.files[0]) takeMask(maskInput.files[0]); maskInput.value = ""; });
  parts.change = button("Change", "image", () => input.click(), { title: "Choose another picture" });
  parts.remove = button("Remove", "close", () => { forget(); input.focus(); }, { title: "Remove the picture" });
  find(".start-acts", element).append(parts.change, parts.remove);
  parts.alpha = button("Mask from alpha", "contrast", takeAlpha, { title: "Mask what is transparent" });
  parts.mask.append(button("Upload a mask", "upload", () => maskInput.click(), { title: "White is drawn anew, black is kept" }), parts.alpha, maskInput);

  canvas = new PaintCanvas({
    changed: painted,
    framed: (frame) => {
      const whole = { width: picture.width + frame.left + frame.right, height: picture.height + frame.top + frame.bottom };
      const { width, height } = fittingSize(whole, latent.models.nativeSize(form.values.checkpoint));
      form.set({ width, height, ...Object.fromEntries(Object.entries(frame).map(([side, pixels]) => [`init.frame.${side}`, pixels])) }, true);
    },
  });
  parts.canvas.append(canvas.element);
  files = batch(parts.batch, { submit: () => find("#generate").click() });
  latent.canvas = canvas;

  const over = (event) => [...(event.dataTransfer?.types ?? [])].some((type) => type === "Files" || type === "text/uri-list");
  element.addEventListener("dragover", (event) => { if (over(event)) { event.preventDefault(); element.classList.add("over"); } });
  element.addEventListener("dragleave", (event) => { if (!element.contains(event.relatedTarget)) element.classList.remove("over"); });
  element.addEventListener("drop", async (event) => {
    element.classList.remove("over");
    if (!over(event)) return;
    event.preventDefault();
    if (mode === "batch") { files.add(event.dataTransfer); return; }
    const [file] = event.dataTransfer.files, address = event.dataTransfer.getData("text/uri-list");
    if (file) take(file);
    else if (address && new URL(address, location).origin === location.origin) take(await (await fetch(address)).blob());
  });
  document.addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find(({ type }) => TYPES.test(type));
    if (!file || !isShown(element) || event.defaultPrevented || mode === "batch") return;
    event.preventDefault();
    take(file);
  });
  form.listeners.push(follow);
  setMode(mode);
  follow(form.values);
}

/* The form got other values: from a reload, from a picture's parameters, from a widget. */
let looking = "";
async function follow(values) {
  if (!form.ready || !canvas) return;
  const frame = frameOf(values);
  if (MASKED.includes(mode) && JSON.stringify(frame) !== JSON.stringify(canvas.frame)) canvas.setFrame(frame);
  const reference = form.latest("init.image"), wanted = () => form.latest("init.image") === reference;
  if (reference && reference !== picture?.reference && reference !== looking) {
    looking = reference;
    try {
      const mine = chosen, found = await call(`inputs/${reference}/info`);
      if (mine === chosen && wanted() && (await show(found, { wanted })) && form.latest("inpaint.mask")) await restoreMask(form.latest("inpaint.mask"));
    } catch (error) { if (error.status && wanted()) forget(); }
    if (looking === reference) looking = "";
  } else if (!reference && picture) putAway();
  update();
}
tabs.listeners.push((id) => { if (id === "img2img") requestAnimationFrame(() => canvas?.arrange()); });
form.fillers.push(complete);
latent.formActions["picture-size"] = () => {
  if (!picture) { say("There is no picture to start from."); return undefined; }
  const { width, height } = fittingSize(picture, Infinity);
  return form.set({ width, height });
};
send.taker("img2img", taker("img2img"));
send.taker("inpaint", taker("inpaint"));
latent.piece("start-picture", mount);
