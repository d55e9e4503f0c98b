/* Equations in view are set first, the others in the pauses of the page, nearest first.
   MathJax.startup.promise is fulfilled when all are set; printing sets the rest at once.
   Loaded before MathJax, whose configuration it completes. */
(() => {
  "use strict";
  const PLACES = ".math, .output_area, .tex2jax_process, .mathjax_process";
  const NEAR = 200; // pixels above and below what is seen
  const AT_ONCE = 16; // equations between two pauses
  let waiting = [];

  const away = (node) => {
    if (!node.getClientRects().length) return Infinity; // in a closed fold
    const { top, bottom } = node.getBoundingClientRect();
    return Math.max(0, top - window.innerHeight, -bottom);
  };

  const pause = () =>
    new Promise((go) =>
      window.requestIdleCallback ? requestIdleCallback(go, { timeout: 200 }) : setTimeout(go, 20),
    );

  const set = (nodes) => {
    const chosen = new Set(nodes);
    waiting = waiting.filter((node) => !chosen.has(node));
    return nodes.length ? window.MathJax.typesetPromise(nodes) : null;
  };

  const nearest = () => {
    const ranked = waiting.map((node) => [away(node), node]).sort((a, b) => a[0] - b[0]);
    return ranked.slice(0, AT_ONCE).map(([, node]) => node);
  };

  const setAll = async () => {
    waiting = [...document.querySelectorAll(PLACES)];
    await set(waiting.filter((node) => away(node) < NEAR));
    performance.mark("equations in view");
    while (waiting.length) {
      await pause();
      await set(nearest());
    }
  };

  if (!window.MathJax) return;
  window.MathJax.startup = { pageReady: setAll };
  window.addEventListener("beforeprint", () => {
    if (waiting.length) window.MathJax.typeset(waiting.splice(0));
  });
})();
