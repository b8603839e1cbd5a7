/* What is done with a picture that was made: its seed, and copies of it and of its place. */
"use strict";
(() => {
  const { copyText, say } = latent.tools;
  const { form, status } = latent;

  const seedOf = (picture) => picture.infotext.match(/(?:^|[,\n] ?)Seed: (\d+)/)?.[1] ?? String(picture.seed);
  function reuseSeed(picture) {
    form.set({ seed: seedOf(picture) });
    say(`Seed ${seedOf(picture)} taken.`);
  }

  async function copyPicture(picture) {
    if (!window.ClipboardItem || !window.isSecureContext) {
      say("Browsers copy pictures only on https or on this machine itself. Use Download.", "bad");
      return;
    }
    const asPng = async () => {
      const blob = await (await fetch(picture.src)).blob();
      if (blob.type === "image/png") return blob;
      const bitmap = await createImageBitmap(blob);
      const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
      canvas.getContext("2d").drawImage(bitmap, 0, 0);
      return canvas.convertToBlob({ type: "image/png" });
    };
    try {
      await navigator.clipboard.write([new ClipboardItem({ "image/png": asPng() })]);
      say("Picture copied.");
    } catch { say("The browser did not allow copying. Use Download.", "bad"); }
  }
  function copyFolder(picture) {
    const folder = picture.path.split("/").slice(0, -1).join("/");
    const root = status.data?.outputs;
    copyText(root ? `${root}/${folder}` : folder, "Folder path");
  }

  Object.assign(latent.tools, { seedOf, reuseSeed, copyPicture, copyFolder });
})();
