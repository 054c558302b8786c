"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const made = (name, kind, text) => { const e = document.createElement(name); if (kind) e.className = kind; if (text !== undefined) e.textContent = text; return e; };
const hidden = new Set();
let chosen = null;

at("title").textContent = data.title;
const problems = data.relations.filter((r) => data.statuses[r.status].problem);
at("summary").textContent = `${data.services} services, ${data.relations.length} relations. ` + (problems.length + data.unanswered.length ? `Needs attention: ${problems.length + data.unanswered.length}.` : "Nothing needs attention: what is declared and what is granted agree.");

for (const [status, { label }] of Object.entries(data.statuses)) {
  const count = data.relations.filter((r) => r.status === status).length;
  if (!count) continue;
  const button = made("button", status);
  const dot = made("i"); dot.style.color = "var(--tone)";
  button.append(dot, `${status.replaceAll("_", " ")} ${count}`);
  button.title = label; button.setAttribute("aria-pressed", "true");
  button.addEventListener("click", () => { hidden.has(status) ? hidden.delete(status) : hidden.add(status); button.setAttribute("aria-pressed", String(!hidden.has(status))); draw(); });
  at("kinds").append(button);
}

function words(r) { return [r.caller, r.receiver, ...r.audiences, ...r.scopes].join("\n").toLowerCase(); }
function shown() { const text = at("filter").value.trim().toLowerCase(); return data.relations.filter((r) => !hidden.has(r.status) && words(r).includes(text)); }

function card(kind, from, to, what, why, open) {
  const button = made("button", `problem ${kind}`);
  button.append(made("strong", "", `${from} → ${to}`), made("em", "", what), made("small", "", why));
  button.addEventListener("click", open);
  return button;
}

function column(list, names, side) {
  list.replaceChildren();
  for (const name of names) {
    const own = data.relations.filter((r) => r[side] === name && data.statuses[r.status].problem && !hidden.has(r.status));
    const button = made("button", `service${own.length ? ` bad ${own[0].status}` : ""}`, name);
    button.title = name; button.dataset.side = side; button.dataset.name = name;
    for (const event of ["mouseenter", "focus"]) button.addEventListener(event, () => mark(side, name));
    for (const event of ["mouseleave", "blur"]) button.addEventListener(event, () => mark(...(chosen || [])));
    button.addEventListener("click", () => { chosen = chosen && chosen[0] === side && chosen[1] === name ? null : [side, name]; mark(...(chosen || [])); service(side, name); });
    const item = made("li"); item.append(button); list.append(item);
  }
}

function mark(side, name) {
  const current = shown().filter((r) => !side || r[side] === name);
  const on = new Set(current.map((r) => `${r.caller}\n${r.receiver}`));
  for (const path of at("lines").children) { const own = on.has(path.dataset.key); path.classList.toggle("off", Boolean(side) && !own); path.classList.toggle("on", Boolean(side) && own); }
  for (const button of document.querySelectorAll(".service")) { const own = current.some((r) => r[button.dataset.side] === button.dataset.name); button.classList.toggle("off", Boolean(side) && !own); button.classList.toggle("on", Boolean(side) && own); }
}

function draw() {
  const current = shown(), text = at("filter").value.trim();
  const has = (side) => new Set(current.map((r) => r[side]));
  const callers = data.callers.filter((n) => has("caller").has(n)), receivers = data.receivers.filter((n) => has("receiver").has(n));
  column(at("callers"), callers, "caller"); column(at("receivers"), receivers, "receiver");
  const cards = current.filter((r) => data.statuses[r.status].problem).map((r) => card(r.status, r.caller, r.receiver, data.statuses[r.status].label, [r.note, r.audiences.length ? `audience ${r.audiences.join(", ")}` : "", r.scopes.length ? `scope ${r.scopes.join(", ")}` : ""].filter(Boolean).join(" · "), () => relation(r)));
  const lost = data.unanswered.filter((u) => `${u.caller}\n${u.audience}`.toLowerCase().includes(text.toLowerCase())).map((u) => card("unanswered", u.caller, u.audience, "no given app accepts this audience", "", () => {}));
  at("problems").replaceChildren(...cards, ...lost);
  const stage = at("stage").getBoundingClientRect(), svg = at("lines"), paths = [];
  const place = (side) => new Map([...document.querySelectorAll(`.service[data-side=${side}]`)].map((b) => [b.dataset.name, b.getBoundingClientRect()]));
  const from = place("caller"), to = place("receiver");
  for (const r of [...current].sort((a, b) => data.statuses[a.status].problem - data.statuses[b.status].problem)) {
    const a = from.get(r.caller), b = to.get(r.receiver), path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    const x1 = a.right - stage.left, y1 = a.top + a.height / 2 - stage.top, x2 = b.left - stage.left, y2 = b.top + b.height / 2 - stage.top, middle = (x1 + x2) / 2;
    path.setAttribute("d", `M${x1},${y1} C${middle},${y1} ${middle},${y2} ${x2},${y2}`);
    path.setAttribute("class", r.status); path.dataset.key = `${r.caller}\n${r.receiver}`; paths.push(path);
  }
  svg.replaceChildren(...paths);
  mark(...(chosen || []));
}

function open(title, parts) {
  const close = made("button", "close", "close (Esc)"); close.addEventListener("click", () => { at("detail").hidden = true; });
  at("detail").replaceChildren(close, made("h2", "", title), ...parts); at("detail").hidden = false;
}

function relation(r) {
  const parts = [made("p", r.status, data.statuses[r.status].label)];
  if (r.note) parts.push(made("p", "", `Keycloak answers ${r.note}`));
  for (const [name, list] of [["Audiences", r.audiences], ["Scopes", r.scopes]]) if (list.length) parts.push(made("h3", "", name), made("div", "", list.join(", ")));
  if (r.routes.length) { const list = made("ul"); for (const route of r.routes) list.append(made("li", "", route.accepted ? `${route.route}: accepted${route.cure ? `. ${route.cure}` : ""}` : `${route.route}: ${route.reason}. ${route.cure}`)); parts.push(made("h3", "", "Routes"), list); }
  if (r.token) parts.push(made("h3", "", "Token (without dates and ids)"), made("pre", "", JSON.stringify(r.token, null, 1)));
  open(`${r.caller} → ${r.receiver}`, parts);
}

function service(side, name) {
  const list = made("ul");
  for (const r of shown().filter((r) => r[side] === name)) {
    const item = made("li"), button = made("button", `service ${r.status}`, `${r.caller} → ${r.receiver}: ${data.statuses[r.status].label}`);
    button.style.whiteSpace = "normal"; button.addEventListener("click", () => relation(r)); item.append(button); list.append(item);
  }
  open(name, [made("h3", "", side === "caller" ? "calls" : "is called by"), list]);
}

at("filter").addEventListener("input", draw);
addEventListener("resize", draw);
addEventListener("beforeprint", draw);
addEventListener("keydown", (event) => { if (event.key === "Escape") { at("detail").hidden = true; chosen = null; mark(); } if (event.key === "/" && document.activeElement !== at("filter")) { event.preventDefault(); at("filter").focus(); } });
draw();
