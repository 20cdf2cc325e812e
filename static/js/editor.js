// The Dockerfile editor: a plain textarea with line numbers, Tab that indents, and the line a
// mistake is in. Without this module it is a textarea, and that is enough.

const INDENT = "    ";

function enhance(box) {
  const area = box.querySelector("textarea");
  const lines = document.createElement("div");
  lines.className = "editor-lines";
  lines.setAttribute("aria-hidden", "true");
  box.prepend(lines);
  let bad = [Number(box.dataset.bad || 0), Number(box.dataset.badEnd || box.dataset.bad || 0)];
  let shown = "";

  function draw() {
    const count = area.value.split("\n").length;
    const key = `${count} ${bad}`;
    if (key !== shown) {
      shown = key;
      lines.replaceChildren(
        ...Array.from({ length: count }, (_none, index) => {
          const number = document.createElement("span");
          number.textContent = index + 1;
          number.classList.toggle("bad", index + 1 >= bad[0] && index + 1 <= bad[1]);
          return number;
        }),
      );
    }
    lines.scrollTop = area.scrollTop;
  }

  let leave = false; // after Esc the next Tab goes on to the next control
  area.addEventListener("keydown", (event) => {
    if (event.key === "Escape") leave = true;
    else if (event.key === "Tab" && !leave && !event.ctrlKey && !event.altKey && !event.metaKey) {
      event.preventDefault();
      if (event.shiftKey) outdent(area);
      else area.setRangeText(INDENT, area.selectionStart, area.selectionEnd, "end");
      area.dispatchEvent(new Event("input", { bubbles: true }));
    } else if (event.key !== "Tab" && event.key !== "Shift") leave = false;
  });
  area.addEventListener("blur", () => (leave = false));
  area.addEventListener("input", () => {
    bad = [0, 0];
    draw();
  });
  area.addEventListener("quayside:filled", draw);
  area.addEventListener("scroll", () => (lines.scrollTop = area.scrollTop), { passive: true });
  new ResizeObserver(draw).observe(area);
  const hint = box.parentElement.querySelector("[data-editor-hint]");
  if (hint) hint.hidden = false;
  const sample = box.parentElement.querySelector("[data-editor-sample]");
  if (sample) {
    const show = () => (sample.hidden = area.value.trim() !== "");
    area.addEventListener("input", show);
    area.addEventListener("quayside:filled", show);
    sample.onclick = () => {
      area.setRangeText(sample.dataset.editorSample, 0, area.value.length, "end");
      area.dispatchEvent(new Event("input", { bubbles: true }));
      area.focus();
    };
    show();
  }
  draw();
  if (bad[0]) showLine(area, bad[0]);
}

function outdent(area) {
  const start = area.value.lastIndexOf("\n", area.selectionStart - 1) + 1;
  const spaces = area.value.slice(start).match(/^ {1,4}|^\t/)?.[0].length ?? 0;
  area.setRangeText("", start, start + spaces, "preserve");
}

function showLine(area, line) {
  const start = area.value.split("\n").slice(0, line - 1).join("\n").length + (line > 1 ? 1 : 0);
  const end = area.value.indexOf("\n", start);
  area.focus({ preventScroll: false });
  area.setSelectionRange(start, end < 0 ? area.value.length : end);
  area.scrollTop = Math.max(0, (line - 5) * 20);
}

for (const box of document.querySelectorAll("[data-editor]")) enhance(box);
