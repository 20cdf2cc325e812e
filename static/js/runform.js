// The run form: the `docker run` line it amounts to, ports that are only documented and can be
// published with a press, and what another image says when one is chosen.

const form = document.querySelector("[data-run-form]");
const line = form.querySelector("[data-docker-line]");
const portRows = form.querySelector("[data-port-rows]");
const template = form.querySelector("[data-port-template]");

// ---------------------------------------------------------------- the command line

const PLAIN = new RegExp("^[\\w@%+=:,./-]+$");

const OPTIONS = [
  ["memory", "-m"],
  ["memory_swap", "--memory-swap"],
  ["cpus", "--cpus"],
  ["pids", "--pids-limit"],
  ["restart", "--restart", "retries"],
  ["network", "--network"],
];
const DEFAULTS = { restart: "no", network: "bridge" };
const LISTS = [
  ["volumes", "-v", "\n"],
  ["labels", "-l", "\n"],
  ["cap_add", "--cap-add", /[\s,]+/],
  ["cap_drop", "--cap-drop", /[\s,]+/],
];
const SWITCHES = [
  ["read_only", "--read-only"],
  ["init", "--init"],
  ["no_new_privileges", "--security-opt no-new-privileges"],
];

/** As a shell wants it: in single quotes where a plain word is not enough. */
function quoted(word) {
  if (PLAIN.test(word)) return word;
  return ["'", word.replaceAll("'", "'\\''"), "'"].join("");
}

function command() {
  const value = (name) => form.elements[name]?.value?.trim() ?? "";
  const on = (name) => form.elements[name].checked;
  const words = ["docker", "run"];
  if (form.elements.mode.value === "detached") words.push("-d");
  const terminal = `${on("interactive") ? "i" : ""}${on("tty") ? "t" : ""}`;
  if (terminal) words.push(`-${terminal}`);
  if (on("auto_remove")) words.push("--rm");
  if (value("name")) words.push("--name", quoted(value("name")));
  for (const port of ports()) words.push("-p", port);
  for (const entry of value("env").split("\n")) {
    if (entry.trim()) words.push("-e", quoted(entry.trim()));
  }
  if (value("working_dir")) words.push("-w", quoted(value("working_dir")));
  if (value("user")) words.push("-u", quoted(value("user")));
  for (const [name, flag, more] of OPTIONS) {
    const end = more && value(more) ? `:${value(more)}` : "";
    const said = value(name) === (DEFAULTS[name] ?? "") ? "" : `${value(name)}${end}`;
    if (said) words.push(flag, quoted(said));
  }
  for (const [name, flag, split] of LISTS) {
    for (const entry of value(name).split(split)) {
      if (entry.trim()) words.push(flag, quoted(entry.trim()));
    }
  }
  for (const [name, flag] of SWITCHES) if (on(name)) words.push(...flag.split(" "));
  const [entrypoint, ...rest] = value("entrypoint").split(/\s+/).filter(Boolean);
  if (entrypoint) words.push("--entrypoint", quoted(entrypoint));
  words.push(value("image") ? quoted(value("image")) : "…", ...rest);
  if (value("command")) words.push(value("command"));
  return words.join(" ");
}

function ports() {
  const address = form.elements.host_ip?.value === "127.0.0.1" ? "127.0.0.1:" : "";
  return [...portRows.querySelectorAll("[data-port-row]")].flatMap((row) => {
    const [host, inside, protocol] = row.querySelectorAll("input, select");
    if (!host.value.trim() && !inside.value.trim()) return [];
    const end = protocol.value === "udp" ? "/udp" : "";
    const from = host.value.trim() ? `${host.value.trim()}:` : address ? ":" : "";
    return [`${address}${from}${inside.value.trim() || "…"}${end}`];
  });
}

function show() {
  line.textContent = command();
  const mode = form.elements.mode.value;
  for (const hint of form.querySelectorAll("[data-when-mode]")) {
    hint.hidden = hint.dataset.whenMode !== mode;
  }
  const published = new Set(
    [...portRows.querySelectorAll("[name=container_port]")].map((field) => field.value.trim()),
  );
  for (const chip of form.querySelectorAll("[data-expose]")) {
    chip.hidden = published.has(chip.dataset.expose);
  }
}

// ---------------------------------------------------------------- ports

function addPort(inside = "", protocol = "tcp") {
  const free = [...portRows.querySelectorAll("[data-port-row]")].find((row) =>
    [...row.querySelectorAll("input")].every((field) => !field.value.trim()),
  );
  const row = free ?? template.content.firstElementChild.cloneNode(true);
  if (!free) portRows.append(row);
  row.querySelector("[name=container_port]").value = inside;
  row.querySelector("[name=protocol]").value = protocol;
  for (const button of row.querySelectorAll("[data-port-remove]")) button.hidden = false;
  row.querySelector("[name=host_port]").focus();
  show();
}

form.addEventListener("click", (event) => {
  const chip = event.target.closest("[data-expose]");
  if (chip) addPort(chip.dataset.expose, chip.dataset.protocol);
  if (event.target.closest("[data-port-add]")) addPort();
  const row = event.target.closest("[data-port-remove]")?.closest("[data-port-row]");
  if (!row) return;
  if (portRows.querySelectorAll("[data-port-row]").length > 1) row.remove();
  else for (const field of row.querySelectorAll("input")) field.value = "";
  show();
});

// ---------------------------------------------------------------- what the image says

let asked = form.elements.image.value;
let timer = 0;

async function defaults() {
  const image = form.elements.image.value.trim();
  if (image === asked) return;
  asked = image;
  const address = `${form.dataset.defaultsUrl}?image=${encodeURIComponent(image)}`;
  const response = await fetch(address).catch(() => null);
  if (!response?.ok || asked !== image) return;
  document.getElementById("defaults").innerHTML = await response.text();
  hints();
  show();
}

function hints() {
  const found = form.querySelector("[data-defaults]")?.dataset ?? {};
  form.elements.command.placeholder = found.command ?? "";
  form.elements.entrypoint.placeholder = found.entrypoint ?? "";
  form.elements.working_dir.placeholder = found.workdir ?? "/";
  form.elements.user.placeholder = found.user ?? "root";
}

form.addEventListener("input", (event) => {
  show();
  if (event.target.name !== "image") return;
  clearTimeout(timer);
  timer = setTimeout(defaults, 250);
});
form.addEventListener("change", show);

for (const button of form.querySelectorAll("[data-port-add], [data-port-remove]")) {
  button.hidden = false;
}
hints();
show();
