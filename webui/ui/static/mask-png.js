/* A mask as a grey PNG of 8 bits (RFC 2083), and back. The browser's own encoder would write four channels, and takes
   half a second for six megapixels; this takes its deflate alone. */

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const GREY = 0, BITS = 8;

const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});
const crc = (bytes) => (bytes.reduce((c, byte) => CRC[(c ^ byte) & 255] ^ (c >>> 8), 0xffffffff) ^ 0xffffffff) >>> 0;

function chunk(name, content) {
  const bytes = new Uint8Array(12 + content.length), view = new DataView(bytes.buffer);
  view.setUint32(0, content.length);
  bytes.set([...name].map((letter) => letter.charCodeAt(0)), 4);
  bytes.set(content, 8);
  view.setUint32(8 + content.length, crc(bytes.subarray(4, 8 + content.length)));
  return bytes;
}

async function deflate(bytes) {
  const stream = new CompressionStream("deflate"), writer = stream.writable.getWriter();
  writer.write(bytes);
  writer.close();
  return new Uint8Array(await new Response(stream.readable).arrayBuffer());
}

/* `data`: one byte a pixel, row by row. */
export async function greyPng(data, width, height) {
  const head = new Uint8Array(13), view = new DataView(head.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  head.set([BITS, GREY], 8);
  const rows = new Uint8Array((width + 1) * height); // each row after a byte 0: no filter
  for (let y = 0; y < height; y++) rows.set(data.subarray(y * width, (y + 1) * width), y * (width + 1) + 1);
  return new Blob([new Uint8Array(SIGNATURE), chunk("IHDR", head), chunk("IDAT", await deflate(rows)), chunk("IEND", new Uint8Array(0))], { type: "image/png" });
}

/* How much is painted over each pixel of a sketch (four bytes a pixel), as a mask. */
export function alphaOf(data) {
  const mask = new Uint8ClampedArray(data.length / 4);
  for (let i = 0; i < mask.length; i++) mask[i] = data[i * 4 + 3];
  return mask;
}

const pixelsOf = (picture, width, height) => {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0, width, height);
  return context.getImageData(0, 0, width, height).data;
};

/* A picture's brightness as a mask of that size; where it is transparent, that part is not masked. */
export function maskFromPicture(picture, width, height) {
  const pixels = pixelsOf(picture, width, height), mask = new Uint8ClampedArray(width * height);
  for (let i = 0, p = 0; i < mask.length; i++, p += 4) {
    mask[i] = ((0.299 * pixels[p] + 0.587 * pixels[p + 1] + 0.114 * pixels[p + 2]) * pixels[p + 3]) / 255;
  }
  return mask;
}

/* What is transparent in a picture, as a mask; null when nothing is. */
export function maskFromAlpha(picture, width, height) {
  const pixels = pixelsOf(picture, width, height), mask = new Uint8ClampedArray(width * height);
  let any = false;
  for (let i = 0; i < mask.length; i++) {
    mask[i] = 255 - pixels[i * 4 + 3];
    any ||= mask[i] > 0;
  }
  return any ? mask : null;
}
