/* Definitions of the glossary's terms, for pointer and keyboard.
   The texts lie in definitions.js beside this file and are loaded when first asked for;
   a script, not a request for data, so that it works from a folder on a disk. */
(() => {
  "use strict";
  const source = new URL("definitions.js", document.currentScript.src).href;
  let loading = null;
  let shown = null;
  let timer = 0;

  const definitions = () =>
    (loading ??= new Promise((resolve) => {
      const script = document.createElement("script");
      script.src = source;
      script.onload = () => resolve(window.flatbookDefinitions || {});
      script.onerror = () => resolve({});
      document.head.append(script);
    }));

  const box = document.createElement("div");
  box.id = "fb-definition";
  box.setAttribute("role", "tooltip");
  box.hidden = true;

  const hide = () => {
    clearTimeout(timer);
    box.hidden = true;
    shown?.removeAttribute("aria-describedby");
    shown = null;
  };

  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(hide, 200); // time to move the pointer into the box
  };

  const place = (link) => {
    const line = link.getClientRects()[0];
    const room = document.documentElement.clientWidth;
    const left = Math.max(8, Math.min(line.left, room - box.offsetWidth - 8));
    const below = line.bottom + 6;
    const fits = below + box.offsetHeight <= window.innerHeight;
    const top = fits ? below : Math.max(8, line.top - box.offsetHeight - 6);
    const origin = box.offsetParent.getBoundingClientRect();
    box.style.left = `${left - origin.left}px`;
    box.style.top = `${top - origin.top}px`;
  };

  const show = async (link) => {
    clearTimeout(timer);
    if (shown === link) return;
    hide();
    shown = link;
    const text = (await definitions())[decodeURIComponent(link.hash.slice(1))];
    const formulas = text?.includes("\\(");
    if (!text || shown !== link || (formulas && !window.MathJax?.typesetPromise)) return;
    box.innerHTML = text;
    if (formulas) await window.MathJax.typesetPromise([box]);
    if (shown !== link) return;
    box.hidden = false;
    link.setAttribute("aria-describedby", box.id);
    place(link);
  };

  const start = () => {
    (document.querySelector("main") ?? document.body).append(box);
    for (const link of document.querySelectorAll('a[href*="#term-"]:not(.headerlink)')) {
      link.addEventListener("pointerenter", () => show(link));
      link.addEventListener("pointerleave", later);
      link.addEventListener("focus", () => show(link));
      link.addEventListener("blur", hide);
    }
    box.addEventListener("pointerenter", () => clearTimeout(timer));
    box.addEventListener("pointerleave", later);
    document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
  };

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
