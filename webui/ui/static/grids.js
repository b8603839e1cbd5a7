/* Grids of scripts: which picture a pointer is on. The parameters text of a sheet says where its cells are and which
   pictures of the job they hold ("Grid layout", "Grid cells"). */
"use strict";
latent.grids = (() => {
  const { call, complain } = latent.tools;
  const LAYOUT = /Grid layout: (\d+)x(\d+) of (\d+)x(\d+) at (\d+)\+(\d+) margin (\d+)/;
  const CELLS = /Grid cells: ([\d -]+)/;

  /* The picture of the cell under the pointer, or null where there is none. */
  function cellAt(event, image, sheet, pictures) {
    const layout = sheet.infotext?.match(LAYOUT)?.slice(1).map(Number), cells = sheet.infotext?.match(CELLS)?.[1].split(" ");
    if (!layout || !cells) return null;
    const [columns, rows, width, height, left, top, margin] = layout;
    const box = image.getBoundingClientRect(), scale = Math.min(box.width / image.naturalWidth, box.height / image.naturalHeight);
    const x = (event.clientX - box.left - (box.width - image.naturalWidth * scale) / 2) / scale - left;
    const y = (event.clientY - box.top - (box.height - image.naturalHeight * scale) / 2) / scale - top;
    const column = Math.floor(x / (width + margin)), row = Math.floor(y / (height + margin));
    if (column < 0 || row < 0 || column >= columns || row >= rows) return null;
    const index = cells[row * columns + column];
    return pictures.find((picture) => picture.job === sheet.job && String(picture.index) === index) ?? null;
  }
  /* A picture made of the others of its job. */
  const isSheet = (picture) => (picture.path ?? "").startsWith("txt2img-grids/");

  /* The params of one picture: a script's job holds the request of all of them, so a cell's own are read from its text
     when somebody looks at it (`look`). */
  const known = new Map();
  function paramsOf(view, image) {
    const scripts = Object.keys(view.params.extensions ?? {}).filter(latent.panels.isScript);
    if (!scripts.length || isSheet(image)) return view.params;
    return { ...view.params, extensions: {}, ...known.get(image.infotext) };
  }
  async function look(picture) {
    if (isSheet(picture) || known.has(picture.infotext) || !Object.keys(latent.stage.view?.params.extensions ?? {}).some(latent.panels.isScript)) return;
    try {
      known.set(picture.infotext, (await call("infotext", { method: "POST", json: { text: picture.infotext } })).params);
      if (known.size > 200) known.delete(known.keys().next().value);
    } catch (error) { complain(error); }
  }
  return { cellAt, isSheet, paramsOf, look };
})();
