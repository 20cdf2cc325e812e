// What every page has: buttons that act at once, dialogs, toasts, keys, selection, times, theme.
//
// Server-rendered pages work without any of this; each part only takes over what is there.
// live.js hears "quayside:changed" {rows: [{kind, id}]} from here and fetches what is shown again.

const body = document.body;

// ---------------------------------------------------------------- asking the server

document.addEventListener("htmx:configRequest", (event) => {
  event.detail.headers["X-CSRFToken"] = body.dataset.csrf;
});

/** POST a form as htmx would: events come back in HX-Trigger, a new address in HX-Redirect, and a
 * form with its mistakes as HTML, for `place`. */
async function post(address, data, place) {
  let response;
  try {
    response = await fetch(address, {
      method: "POST",
      body: data,
      headers: { "HX-Request": "true", "X-CSRFToken": body.dataset.csrf },
    });
  } catch {
    toast({
      tone: "fail",
      text: gettext("The server does not answer."),
      hint: gettext("Nothing was changed. Try again in a moment."),
    });
    return false;
  }
  const events = JSON.parse(response.headers.get("HX-Trigger") ?? "{}");
  for (const [name, detail] of Object.entries(events)) {
    document.dispatchEvent(new CustomEvent(name, { detail }));
  }
  const address2 = response.headers.get("HX-Redirect");
  if (address2) location.assign(address2);
  else if (response.status === 422 && place) place.innerHTML = await response.text();
  else if (!response.ok && !events["quayside:toast"]) {
    toast({
      tone: "fail",
      text: gettext("That could not be done."),
      hint: gettext("Load the page again and try once more."),
    });
  }
  return response.ok;
}

/** Until live.js shows what a change did, two seconds at most. */
function shown() {
  return new Promise((resolve) => {
    document.addEventListener("quayside:shown", resolve, { once: true });
    setTimeout(resolve, 2000);
  });
}

function busy(button, on) {
  if (!button) return;
  if (on) button.setAttribute("aria-busy", "true");
  else button.removeAttribute("aria-busy");
}

document.addEventListener("submit", async (event) => {
  const { target: form, submitter } = event;
  if (event.defaultPrevented || form.method === "dialog") return;
  if (submitter?.getAttribute("aria-busy") === "true") {
    event.preventDefault();
    return;
  }
  if (submitter?.hasAttribute("data-dialog")) {
    event.preventDefault();
    const query = new URLSearchParams(new FormData(form).getAll("id").map((id) => ["id", id]));
    showDialog(`${submitter.formAction}?${query}`);
  } else if (submitter?.hasAttribute("data-act") || form.hasAttribute("data-act-form")) {
    event.preventDefault();
    const data = new FormData(form, submitter);
    busy(submitter, true);
    submitter?.closest("details.menu")?.removeAttribute("open");
    // Not form.action: a button named "action" would stand for it.
    const address = (submitter ?? form).getAttribute("formaction") ?? form.getAttribute("action");
    const done = await post(address, data);
    if (done && form.closest("dialog")) form.closest("dialog").close();
    else if (done) await shown(); // pressed twice, it still acts once
    busy(submitter, false);
    // What was removed has no page any more.
    if (done && form.dataset.leave && document.getElementById("container-head")) {
      location.assign(form.dataset.leave);
    }
    if (done && form.hasAttribute("data-bulk") && submitter.name === "action") deselect();
  } else if (form.hasAttribute("data-dialog-form") && form.closest("dialog")) {
    event.preventDefault();
    busy(submitter, true);
    await post(form.getAttribute("action"), new FormData(form, submitter), dialog);
    busy(submitter, false);
  } else if (form.hasAttribute("data-once")) {
    busy(submitter, true); // until the next page shows
  }
});
addEventListener("pageshow", () => {
  for (const button of document.querySelectorAll("[aria-busy]")) busy(button, false);
});

// ---------------------------------------------------------------- toasts

const MARKS = { run: "check", fail: "alert" };

function toast({ tone, text, hint }) {
  const box = document.createElement("div");
  box.className = `notice notice-${tone}`;
  const words = document.createElement("div");
  const title = document.createElement("strong");
  title.textContent = text;
  words.append(title);
  if (hint) {
    const more = document.createElement("p");
    more.textContent = hint;
    words.append(more);
  }
  const close = document.createElement("button");
  close.className = "button button-icon button-quiet";
  close.setAttribute("aria-label", gettext("Close"));
  close.append(icon("close"));
  close.onclick = () => box.remove();
  box.append(icon(MARKS[tone] ?? "info"), words, close);
  document.getElementById("toasts")?.append(box);
  // A sentence that says what to do stays until it is read; a confirmation goes by itself.
  if (tone !== "fail") setTimeout(() => box.remove(), 5000);
}
document.addEventListener("quayside:toast", (event) => toast(event.detail));

/** An icon of the sprite, as the page's own icons name it. */
function icon(name) {
  const known = document.querySelector("svg.icon use")?.getAttribute("href") ?? "#";
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  svg.classList.add("icon");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `${known.split("#")[0]}#${name}`);
  svg.append(use);
  return svg;
}

// ---------------------------------------------------------------- dialogs and menus

const dialog = document.getElementById("dialog");

async function showDialog(address) {
  const response = await fetch(address, { headers: { "HX-Request": "true" } }).catch(() => null);
  if (!response?.ok || response.redirected) {
    location.assign(address); // the page says what the dialog cannot
    return;
  }
  dialog.innerHTML = await response.text();
  dialog.showModal();
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-dialog]");
  if (link && dialog && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
    event.preventDefault();
    link.closest("details.menu")?.removeAttribute("open");
    showDialog(link.href);
  }
  // A download leaves the page, and an open menu on it.
  event.target.closest("a.menu-item[download]")?.closest("details").removeAttribute("open");
  if (event.target.closest("[data-close]") && event.target.closest("dialog")) {
    event.preventDefault();
    event.target.closest("dialog").close();
  }
  if (event.target.matches("dialog")) event.target.close(); // the backdrop
  for (const menu of document.querySelectorAll("details.menu[open], details.bar-more[open]")) {
    if (!menu.contains(event.target)) menu.removeAttribute("open");
  }
});

// ---------------------------------------------------------------- selection and bulk actions

const boxes = () => [...document.querySelectorAll("[data-select]:enabled")];

function showSelection() {
  const bar = document.querySelector("[data-selection]");
  if (!bar) return;
  const all = boxes();
  const chosen = all.filter((box) => box.checked).length;
  bar.hidden = chosen === 0;
  bar.querySelector("[data-selected]").textContent = chosen;
  const whole = document.querySelector("[data-select-all]");
  if (whole) {
    whole.checked = chosen > 0 && chosen === all.length;
    whole.indeterminate = chosen > 0 && chosen < all.length;
  }
}

function deselect() {
  for (const box of boxes()) box.checked = false;
  showSelection();
}

let lastBox = null;
document.addEventListener("click", (event) => {
  const box = event.target;
  if (!box.matches?.("[data-select]")) return;
  if (event.shiftKey && lastBox) {
    const all = boxes();
    const [from, to] = [all.indexOf(lastBox), all.indexOf(box)].sort((a, b) => a - b);
    for (const between of all.slice(from, to + 1)) between.checked = box.checked;
    showSelection();
  }
  lastBox = box;
});
document.addEventListener("change", (event) => {
  if (event.target.matches("[data-select-all]")) {
    for (const box of boxes()) box.checked = event.target.checked;
  }
  if (event.target.matches("[data-select], [data-select-all]")) showSelection();
});
document.addEventListener("click", (event) => {
  if (event.target.closest("[data-deselect]")) deselect();
});
document.addEventListener("htmx:afterSwap", showSelection);
document.addEventListener("quayside:shown", showSelection);
addEventListener("pageshow", showSelection);

// ---------------------------------------------------------------- keys

const rows = () => [...document.querySelectorAll("[data-row]")];

function move(step) {
  const all = rows();
  if (!all.length) return;
  const now = all.findIndex((row) => row.hasAttribute("data-at"));
  const next = all[Math.min(Math.max(now + step, 0), all.length - 1)];
  all[now]?.removeAttribute("data-at");
  next.setAttribute("data-at", "");
  next.scrollIntoView({ block: "nearest" });
  next.querySelector("a.name")?.focus({ preventScroll: true });
}

const KEYS = {
  "/": () => document.querySelector("[data-filter]")?.focus(),
  j: () => move(1),
  k: () => move(-1),
  x: (row) => row?.querySelector("[data-select]")?.click(),
  Enter: (row) => row && location.assign(row.dataset.href),
  l: (row) => row?.dataset.base && location.assign(`${row.dataset.base}logs/`),
  t: (row) => row?.dataset.base && location.assign(`${row.dataset.base}terminal/`),
  s: (row) => row?.querySelector("[data-act]:not(:disabled)")?.click(),
  "?": () => document.getElementById("keys")?.showModal(),
};

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    const menu = document.querySelector("details.menu[open], details.bar-more[open]");
    menu?.removeAttribute("open");
    menu?.querySelector("summary")?.focus();
    if (event.target.matches("[data-filter]")) event.target.blur();
  }
  const writing = event.target.closest("input:not([type=checkbox]), textarea, select, .xterm");
  if (writing || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (document.querySelector("dialog[open]")) return;
  const does = KEYS[event.key];
  if (!does) return;
  if (event.key === "Enter" && event.target.closest("a, button, summary, label")) return;
  does(document.querySelector("[data-row][data-at]"));
  if (event.key !== "Enter") event.preventDefault();
});

// ---------------------------------------------------------------- times

function coarse(seconds) {
  const say = (words, n) => interpolate(words, { n: Math.floor(n) }, true);
  if (seconds < 60) return say(gettext("%(n)s s"), seconds);
  if (seconds < 3600) return say(gettext("%(n)s min"), seconds / 60);
  if (seconds < 48 * 3600) return say(gettext("%(n)s h"), seconds / 3600);
  return say(gettext("%(n)s d"), seconds / 86400);
}

/** Every ten seconds, and every second what counts in seconds. */
function showTimes(all = true) {
  for (const time of document.querySelectorAll("time[data-time]")) {
    const ahead = time.dataset.time === "until" ? -1 : 1; // a moment to come
    const passed = Math.max((ahead * (Date.now() - Date.parse(time.dateTime))) / 1000, 0);
    if (!all && (passed > 61 || time.dataset.time === "ago")) continue;
    let text = coarse(passed);
    if (time.dataset.time === "ago") {
      text =
        passed < 10
          ? gettext("just now")
          : interpolate(gettext("%(time)s ago"), { time: text }, true);
    }
    if (time.textContent !== text) time.textContent = text;
  }
}
let ticks = 0;
setInterval(() => document.visibilityState === "visible" && showTimes(++ticks % 10 === 0), 1000);
document.addEventListener("visibilitychange", () => showTimes());

// On a phone the tabs scroll: the current one is to be seen.
document.querySelector(".tabs [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

// ---------------------------------------------------------------- theme

const THEMES = ["auto", "light", "dark"];
const theme = () => document.documentElement.dataset.theme ?? "auto";

function showTheme() {
  for (const button of document.querySelectorAll("[data-theme-toggle]")) {
    button.hidden = false;
    button.title = button.dataset[theme()];
    button.querySelector(".word").textContent = button.dataset[theme()];
  }
}
document.addEventListener("click", (event) => {
  if (!event.target.closest("[data-theme-toggle]")) return;
  const next = THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length];
  if (next === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  document.cookie = `quayside_theme=${next}; path=/; max-age=31536000; samesite=lax`;
  showTheme();
});
showTheme();

// ---------------------------------------------------------------- the build page's Dockerfile

document.addEventListener("quayside:build-failed", (event) => {
  const { line, end } = event.detail;
  const lines = [...document.querySelectorAll(".dockerfile > li")];
  lines.forEach((item, index) => {
    item.classList.toggle("failed", index + 1 >= line && index + 1 <= (end ?? line));
  });
  lines[line - 1]?.scrollIntoView({ block: "nearest" });
});

document.addEventListener("quayside:terminal-end", () => {
  document.querySelector("[data-leave-hint]")?.remove();
  document.querySelector("[data-ended-hint]")?.removeAttribute("hidden");
});

const openAgain = () => document.querySelector("[data-again]")?.setAttribute("open", "");
if (location.hash === "#again") openAgain();
document.addEventListener("click", (event) => {
  if (event.target.closest("a[href='#again']")) openAgain();
});
