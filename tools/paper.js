/* Runs in the page before it is printed: waits until the formulas are set, makes what
   is too wide smaller, and returns what is still wider than the paper (null without
   MathJax). */
async () => {
  if (!window.MathJax?.startup?.promise) return null;
  await MathJax.startup.promise;
  await document.fonts.ready;
  const SMALLEST = 0.55;

  for (const copy of document.querySelectorAll("mjx-assistive-mml")) copy.remove();

  const room = (element) => {
    const style = getComputedStyle(element);
    return element.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
  };
  const block = (element) => {
    let above = element.parentElement;
    while (getComputedStyle(above).display.startsWith("inline")) above = above.parentElement;
    return above;
  };

  for (const box of document.querySelectorAll("mjx-container")) {
    const shown = box.getAttribute("display") === "true";
    const width = box.querySelector("mjx-math").getBoundingClientRect().width;
    const ratio = room(shown ? box : block(box)) / width;
    if (ratio < 1) {
      const size = parseFloat(getComputedStyle(box).fontSize);
      box.style.fontSize = `${size * Math.max(0.99 * ratio, SMALLEST)}px`;
    }
  }
  for (const table of document.querySelectorAll("table")) {
    const ratio = room(block(table)) / table.scrollWidth;
    if (ratio < 1) table.style.zoom = Math.max(0.99 * ratio, SMALLEST);
  }

  const wide = [];
  for (const chapter of document.querySelectorAll(".chapter")) {
    const edge = chapter.getBoundingClientRect().right + 1;
    for (const part of chapter.querySelectorAll("mjx-math, table, pre, img, svg, code")) {
      if (part.getBoundingClientRect().right > edge) {
        wide.push(`${chapter.id}: ${part.tagName.toLowerCase()} ${part.textContent.trim().slice(0, 40)}`);
      }
    }
  }
  return wide;
}
