/* Gradio's spinner of the page's start goes on asking for an animation frame in every frame when it is gone, for as long
   as the page is open: a tenth of a slow core for a page that nobody touches. Requests are numbered, so when exactly one
   stands between two of ours for half a second, it is the spinner's, and the next one of it is taken back. */
"use strict";
latent.stopSpinner = () => {
  const SURE = 30, MOST = 1200; // frames
  let last = 0, alone = 0, frames = 0;
  const look = () => {
    const own = requestAnimationFrame(() => setTimeout(look)); // behind what others ask for in that frame
    alone = own - last === 2 ? alone + 1 : 0;
    last = own;
    if (alone < SURE && ++frames < MOST) return;
    cancelAnimationFrame(own);
    if (alone >= SURE) cancelAnimationFrame(own - 1);
  };
  look();
};
