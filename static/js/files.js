// A container's Files tab: files and folders, chosen or dropped, go into the folder that is shown,
// packed into a tar here. And a commit's page goes on to its image.

import { Refused, fromEntry, request, send, sized } from "./send.js";
import { pack, packedSize } from "./tar.js";

class Put {
  constructor(box) {
    this.box = box;
    this.busy = false;
    const files = this.find("put-files");
    const folder = this.find("put-folder");
    this.find("put-plain").hidden = true;
    folder.hidden = false;
    for (const input of [files, folder.querySelector("input")]) {
      input.onchange = () => {
        const chosen = [...input.files].map((file) => ({
          path: file.webkitRelativePath || file.name,
          file,
        }));
        input.value = ""; // the same may be chosen again
        this.put(chosen);
      };
    }
    // Leaving loses what was not sent yet.
    addEventListener("beforeunload", (event) => this.busy && event.preventDefault());
    const over = (on) => (event) => {
      if (!event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      box.classList.toggle("over", on);
    };
    box.addEventListener("dragover", over(true));
    box.addEventListener("dragleave", over(false));
    box.addEventListener("drop", (event) => {
      over(false)(event);
      this.put(dropped(event.dataTransfer));
    });
  }

  find(name) {
    return this.box.querySelector(`[data-${name}]`);
  }

  async put(coming) {
    if (this.busy) return;
    this.busy = true;
    this.#problem("");
    try {
      await this.#put(await coming);
    } catch (error) {
      const unread = gettext("A file could not be read, perhaps it changed meanwhile. Choose it again.");
      this.#problem(error instanceof Refused ? error.message : unread);
    }
    this.find("put-status").hidden = true;
    this.busy = false;
  }

  async #put(entries) {
    const files = entries.filter((entry) => entry.file).length;
    if (!entries.length || !this.#agreed(entries)) return;
    const size = packedSize(entries);
    const words = interpolate(ngettext("%s file", "%s files", files), [files]);
    const bar = this.find("put-status").querySelector("progress");
    this.find("put-status").hidden = false;
    this.find("put-status").scrollIntoView({ block: "center" });
    this.find("put-name").textContent = words;
    const progress = (now) => {
      bar.max = size;
      bar.value = now;
      this.find("put-detail").textContent = `${sized(now)} / ${sized(size)}`;
    };
    progress(0);
    const id = await send(this.box.dataset.uploadsUrl, "files.tar", size, pack(entries), progress);
    bar.removeAttribute("value"); // how long that takes nobody knows
    this.find("put-detail").textContent = gettext("being put into the container …");
    await request("POST", this.box.dataset.put, new URLSearchParams({ upload: id }));
    const again = { target: "#rows-area", select: "#rows-area", swap: "outerHTML" };
    await htmx.ajax("GET", location.href, again);
    const text = interpolate(ngettext("%s file is there.", "%s files are there.", files), [files]);
    const detail = { tone: "run", text, hint: "" };
    document.dispatchEvent(new CustomEvent("quayside:toast", { detail }));
  }

  /** What is shown and would be replaced is asked about, once. */
  #agreed(entries) {
    const here = new Set([...this.box.querySelectorAll("[data-file]")].map((row) => row.dataset.file));
    const replaced = entries.filter(({ path }) => here.has(path)).map(({ path }) => path);
    if (!replaced.length) return true;
    const some = replaced.slice(0, 5).join(", ") + (replaced.length > 5 ? " …" : "");
    return confirm(interpolate(gettext("This replaces: %s. Go on?"), [some]));
  }

  #problem(text) {
    const place = this.find("put-error");
    place.hidden = !text;
    place.textContent = text;
    if (text) place.scrollIntoView({ block: "center" });
  }
}

/** The list is only there while the event is handled; what is in it is read afterwards. */
function dropped(transfer) {
  const items = [...transfer.items].map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
  return Promise.all(items.filter(Boolean).map(read)).then((lists) => lists.flat());
}

async function read(item) {
  if (item instanceof File) return [{ path: item.name, file: item }];
  if (item.isFile) {
    const file = await new Promise((done, failed) => item.file(done, failed));
    return [{ path: item.name, file }];
  }
  const inside = await fromEntry(item);
  const entries = inside.map(({ path, file }) => ({ path: `${item.name}/${path}`, file }));
  // A folder is made for what is in it: one that is there keeps its mode and owner. Empty ones go.
  const filled = new Set(entries.map(({ path }) => path.slice(0, path.lastIndexOf("/"))));
  if (!entries.length) return [{ path: item.name, file: null }];
  return entries.filter(({ path, file }) => file || !filled.has(path));
}

for (const box of document.querySelectorAll("[data-put]")) new Put(box);

// ---------------------------------------------------------------- on to the image

document.addEventListener("quayside:shown", () => {
  const there = document.querySelector("[data-go]")?.dataset.go;
  if (there) location.replace(there);
});
