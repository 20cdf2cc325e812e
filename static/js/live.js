// Keeps what is on screen true. The events socket says which rows changed; every 250 ms at most
// what is shown of them is fetched again and morphed in, so that scroll, focus, selection, open
// menus and typed text stay. The order of rows never changes by itself: new ones are counted.
//
//   <tbody data-live-rows="container" data-rows-url="…">   rows <tr id data-row="PK">, by ?ids=
//   <… id data-live="build container:12">                  fragments, by this page's own address
//   data-pending on a row or fragment                      it also follows operations

import { open } from "./socket.js";

const EVERY_MS = 250;
const changes = new Map(); // "kind id" -> [kind, id]
let timer = 0;
let running = false;

function changed(kind, id) {
  changes.set(`${kind} ${id}`, [kind, String(id)]);
  if (!timer && !running) timer = setTimeout(refresh, EVERY_MS);
}

document.addEventListener("quayside:changed", (event) => {
  for (const { kind, id } of event.detail.rows) changed(kind, id);
});

async function refresh() {
  timer = 0;
  if (document.visibilityState === "hidden") return; // taken up again when it shows
  running = true;
  const now = [...changes.values()];
  changes.clear();
  try {
    await Promise.all([...tables().map((table) => refreshRows(table, now)), refreshParts(now)]);
  } catch {
    // the server is away: the socket notices too, and all is fetched again when it is back
  }
  running = false;
  document.dispatchEvent(new CustomEvent("quayside:shown"));
  if (changes.size) timer = setTimeout(refresh, EVERY_MS);
}

const tables = () => [...document.querySelectorAll("[data-live-rows]")];

// ---------------------------------------------------------------- rows

async function refreshRows(table, now) {
  const kind = table.dataset.liveRows;
  const shown = new Map([...table.querySelectorAll("[data-row]")].map((r) => [r.dataset.row, r]));
  const wanted = new Set();
  const unknown = [];
  for (const [changedKind, id] of now) {
    if (changedKind === kind && id === "*") for (const key of shown.keys()) wanted.add(key);
    else if (changedKind === kind && shown.has(id)) wanted.add(id);
    else if (changedKind === kind) unknown.push(id);
    else if (changedKind === "operation") {
      for (const [key, row] of shown) if (row.hasAttribute("data-pending")) wanted.add(key);
    }
  }
  noticeNew(table, shown, unknown);
  if (!wanted.size) return;
  const response = await ask(`${table.dataset.rowsUrl}?ids=${[...wanted].join(",")}`);
  if (!response.ok) return;
  const fresh = new Map(parse(`<table><tbody>${await response.text()}</tbody></table>`));
  for (const id of wanted) {
    const row = shown.get(id);
    const next = fresh.get(row.id);
    if (next) morph(row, next);
    else gone(row);
  }
}

function gone(row) {
  row.setAttribute("data-gone", "");
  for (const control of row.querySelectorAll("button, input")) control.disabled = true;
  for (const box of row.querySelectorAll("[data-select]")) box.checked = false;
}

/** Rows with a higher key than all shown are new ones; they come in when somebody asks. */
const seenNew = new Set();

function noticeNew(table, shown, unknown) {
  const highest = Math.max(0, ...[...shown.keys()].map(Number));
  for (const id of unknown) if (Number(id) > highest) seenNew.add(id);
  const place = document.querySelector("[data-new-rows]");
  if (!seenNew.size || !place) return;
  const words = ngettext("%s new: show it", "%s new: show them", seenNew.size);
  let link = place.querySelector("a");
  if (!link) {
    link = document.createElement("a");
    link.className = "button";
    link.href = location.href;
    place.append(link);
  }
  link.textContent = interpolate(words, [seenNew.size]);
}
document.addEventListener("htmx:afterSwap", () => {
  seenNew.clear();
  document.querySelector("[data-new-rows]")?.replaceChildren();
});

// ---------------------------------------------------------------- fragments

async function refreshParts(now) {
  const parts = [...document.querySelectorAll("[data-live]")].filter((part) => watches(part, now));
  if (!parts.length) return;
  const response = await ask(location.href);
  if (response.status === 404) {
    for (const part of parts) noticeGone(part);
    return;
  }
  if (!response.ok || response.redirected) return;
  const fresh = new Map(parse(await response.text()));
  let missing = false;
  for (const part of parts) {
    const next = fresh.get(part.id);
    if (next) morph(part, next);
    else missing = true;
  }
  // A page that was empty and is not any more (or the other way round) looks different as a whole.
  if (missing && !typing()) location.reload();
}

function watches(part, now) {
  const wanted = part.dataset.live.split(" ");
  const pending = part.matches("[data-pending]") || part.querySelector("[data-pending]");
  return now.some(
    ([kind, id]) =>
      wanted.includes(kind) ||
      wanted.includes(`${kind}:${id}`) ||
      (id === "*" && wanted.some((word) => word.startsWith(kind))) ||
      (kind === "operation" && pending),
  );
}

function noticeGone(part) {
  if (!part.dataset.gone || part.hasAttribute("data-told")) return;
  part.setAttribute("data-told", "");
  for (const control of part.querySelectorAll("button")) control.disabled = true;
  const detail = { tone: "warn", text: part.dataset.gone, hint: "" };
  document.dispatchEvent(new CustomEvent("quayside:toast", { detail }));
}

const typing = () =>
  [...document.querySelectorAll("input, textarea")].some((field) => field === document.activeElement);

// ---------------------------------------------------------------- fetching and morphing

const ask = (address) =>
  fetch(address, { headers: { "X-Quayside-Live": "1" }, cache: "no-store" });

function parse(html) {
  const page = new DOMParser().parseFromString(html, "text/html");
  return [...page.querySelectorAll("[id]")].map((element) => [element.id, element]);
}

const KEPT = ["open", "data-at", "data-told", "aria-busy"];

function morph(old, next) {
  Idiomorph.morph(old, next, {
    morphStyle: "outerHTML",
    // Typed text stays; but a button that has the focus gets its new word like all others.
    ignoreActiveValue: document.activeElement?.matches("input, textarea, select") ?? false,
    restoreFocus: true,
    callbacks: {
      // What somebody chose or has open is theirs.
      beforeNodeMorphed: (from) => !(from.matches?.("[data-select]") ?? false),
      beforeAttributeUpdated: (name, node) =>
        !KEPT.includes(name) || (name === "open" && !node.matches("details")),
    },
  });
}

// ---------------------------------------------------------------- the socket

function everything() {
  for (const kind of ["container", "build", "image", "operation"]) changed(kind, "*");
}

const offline = document.getElementById("offline");
let lost = 0;

if (document.body.dataset.team && document.querySelector("[data-live], [data-live-rows]")) {
  open({
    path: () => `/ws/events/?team=${encodeURIComponent(document.body.dataset.team)}`,
    onMessage: (message) => message.t === "changed" && changed(message.kind, message.id),
    onState(state) {
      clearTimeout(lost);
      if (state === "open") {
        offline.hidden = true;
        everything(); // what changed while nobody listened
      } else if (state !== "connecting") {
        lost = setTimeout(() => (offline.hidden = false), 3000);
      }
    },
  });
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible" && changes.size && !timer) refresh();
  });
}
