// Slides of a chapter: reveal.js, fitted sheets, sliders that keep their arrow keys.
(() => {
  const NARROW = innerWidth < 640;
  const SMALLEST = 0.6; // of the usual size; tests hold every slide above it
  const slides = () => [...document.querySelectorAll(".slides section:not(.stack)")];

  // Everything but the notes of a slide goes into a sheet that can be made smaller.
  for (const slide of slides()) {
    if (slide.querySelector(":scope > section")) continue;
    const sheet = document.createElement("div");
    sheet.className = "sheet";
    sheet.append(...[...slide.childNodes].filter((n) => !n.matches?.("aside.notes")));
    slide.prepend(sheet);
  }

  const cut = (node) => node.scrollWidth > node.clientWidth + 1;
  const tooLarge = (sheet, room) =>
    sheet.getBoundingClientRect().height / Reveal.getScale() > room ||
    [...sheet.querySelectorAll("div.math, pre, .sheet > *")].some(cut);

  // Make a sheet smaller, in small steps, until it is as high and wide as its slide.
  const fit = (sheet) => {
    const room = Reveal.getConfig().height;
    sheet.style.zoom = 1;
    for (let size = 1; size > SMALLEST && tooLarge(sheet, room); ) {
      size = Math.round(100 * size - 4) / 100;
      sheet.style.zoom = size;
    }
  };
  const fitAll = () => document.querySelectorAll(".sheet").forEach(fit);

  // Notes are shown in a window of their own, which has no MathJax: MathML needs none.
  const notesAsMathML = () => {
    for (const node of document.querySelectorAll("aside.notes .math")) {
      const source = node.textContent.trim();
      const tex = source.replace(/^\\[([]/, "").replace(/\\[)\]]$/, "");
      node.innerHTML = MathJax.tex2mml(tex, { display: source.startsWith("\\[") });
      node.classList.remove("math");
    }
  };
  const set = window.MathJax // its settings: the script itself comes after this one
    ? new Promise((resolve) => {
        window.MathJax.chtml = { matchFontHeight: false };
        window.MathJax.startup = {
          ...window.MathJax.startup,
          pageReady: () => {
            notesAsMathML();
            return MathJax.startup.defaultPageReady().then(resolve);
          },
        };
      })
    : Promise.resolve();

  // A slider keeps its arrow keys; Escape and a presenter's Page keys leave it.
  addEventListener(
    "keydown",
    (event) => {
      const slider = document.activeElement;
      if (!slider?.matches('.fb-explorer input[type="range"]')) return;
      if (!["Escape", "PageUp", "PageDown"].includes(event.key)) return;
      slider.blur();
      event.preventDefault();
      event.stopPropagation();
      if (event.key === "PageDown") Reveal.next();
      if (event.key === "PageUp") Reveal.prev();
    },
    true,
  );
  document
    .querySelectorAll(".fb-explorer")
    .forEach((figure) => figure.setAttribute("data-prevent-swipe", ""));

  const turn = () => {
    const root = document.documentElement;
    root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
    localStorage.setItem("theme", root.dataset.theme);
  };
  const size = NARROW ? { width: 480, height: 800 } : { width: 1280, height: 720 };
  window.deckReady = Promise.all([
    Reveal.initialize({
      ...size,
      center: false,
      controlsLayout: "edges",
      hash: true,
      margin: NARROW ? 0.06 : 0.05,
      plugins: [RevealNotes],
      scrollActivationWidth: null, // a phone gets slides of its own shape instead
      slideNumber: "c/t",
      transition: "none",
      viewDistance: 999, // hidden slides keep their size, so that all can be fitted
      mobileViewDistance: 999,
    }),
    set,
  ]).then(() => {
    Reveal.addKeyBinding({ keyCode: 68, key: "D", description: "Light or dark" }, turn);
    fitAll();
  });
})();
