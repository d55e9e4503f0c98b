// Slides of a chapter: reveal.js, fitted sheets, sliders that keep their arrow keys.
(() => {
  const NARROW = innerWidth < 640;
  const SIZE = NARROW ? { width: 480, height: 800 } : { width: 1280, height: 720 };
  const SMALLEST = 0.6; // of the usual size; tests hold every slide above it

  // Everything but the notes of a slide goes into a sheet that can be made smaller.
  for (const slide of document.querySelectorAll(".slides > section > section")) {
    const sheet = document.createElement("div");
    sheet.className = "sheet";
    sheet.append(...[...slide.childNodes].filter((n) => !n.matches?.("aside.notes")));
    slide.prepend(sheet);
  }

  const slides = document.querySelector(".slides");
  const cut = (node) => node.scrollWidth > node.clientWidth + 1;
  const tooLarge = (sheet) =>
    sheet.getBoundingClientRect().height > SIZE.height ||
    [...sheet.querySelectorAll("div.math, pre, table")].some(cut);

  // Make a sheet smaller, in small steps, until it is as high and wide as its slide.
  const fit = (sheet) => {
    const around = [sheet.parentElement, sheet.parentElement.parentElement];
    around.forEach((node) => node.style.setProperty("display", "block", "important"));
    sheet.style.zoom = 1;
    for (let size = 1; size > SMALLEST && tooLarge(sheet); ) {
      size = Math.round(100 * size - 4) / 100;
      sheet.style.zoom = size;
    }
    around.forEach((node) => node.style.removeProperty("display"));
  };
  const fitAll = () => {
    slides.style.width = `${SIZE.width}px`;
    document.querySelectorAll(".sheet").forEach(fit);
    slides.style.width = "";
  };

  // Notes are shown in a window of their own, which has no MathJax: MathML needs none.
  const notesAsMathML = () => {
    for (const node of document.querySelectorAll("aside.notes .math")) {
      const source = node.textContent.trim();
      const tex = source.replace(/^\\[([]/, "").replace(/\\[)\]]$/, "");
      node.innerHTML = MathJax.tex2mml(tex, { display: source.startsWith("\\[") });
      node.classList.remove("math");
    }
  };
  const script = document.querySelector("script[src*=mathjax i]");
  const set = new Promise((resolve) => {
    if (!script) resolve();
    script?.addEventListener("error", resolve);
    window.MathJax = {
      ...window.MathJax,
      chtml: { matchFontHeight: false },
      startup: {
        pageReady: () => {
          notesAsMathML();
          return MathJax.startup.defaultPageReady().then(resolve);
        },
      },
    };
  });

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
  const start = () =>
    Reveal.initialize({
      ...SIZE,
      center: false,
      hash: true,
      margin: 0.06,
      plugins: [RevealNotes],
      scrollActivationWidth: null, // a phone gets slides of its own shape instead
      slideNumber: "c/t",
      transition: "none",
    });
  window.deckReady = set
    .then(() => document.fonts.ready)
    .then(fitAll)
    .then(start)
    .then(() =>
      Reveal.addKeyBinding({ keyCode: 68, key: "D", description: "Light or dark" }, turn),
    );
})();
