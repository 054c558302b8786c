"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
// Characters that nobody sees, or that turn the text around them, are written as their code: no name can look like another one.
const unseen = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}]/gu;
const visible = (text) => text.replace(unseen, (char) => `\\u${char.codePointAt(0).toString(16).padStart(4, "0")}`);
const made = (name, kind, text) => { const e = document.createElement(name); if (kind) e.className = kind; if (text !== undefined) e.textContent = visible(text); return e; };
data.relations.forEach((r, number) => { r.number = number; });
const label = (r) => data.statuses[r.status].label, problem = (r) => data.statuses[r.status].problem;
const SIDES = { caller: "callers", receiver: "receivers" }, MIDDLE = 50;
const hidden = new Set();
let chosen = null; // the service whose relations alone are shown
let pinned = null; // draws what the detail goes back to when the pointer leaves

at("title").textContent = visible(data.title);
document.title = visible(data.title);
const attention = data.relations.filter(problem).length + data.unanswered.length;
const whole = `${data.services} services, ${data.relations.length} relations. `;
const verdict = attention ? made("strong", "", `Needs attention: ${attention}.`) : "Nothing needs attention: what is declared and what is granted agree.";

for (const [status, { label: title }] of Object.entries(data.statuses)) {
  const count = data.relations.filter((r) => r.status === status).length;
  if (!count) continue;
  const button = made("button", status);
  button.append(made("i"), `${status.replaceAll("_", " ")} ${count}`);
  button.title = title; button.setAttribute("aria-pressed", "true");
  button.addEventListener("click", () => { hidden.has(status) ? hidden.delete(status) : hidden.add(status); button.setAttribute("aria-pressed", String(!hidden.has(status))); draw(); });
  at("kinds").append(button);
}

function fits(...texts) { return texts.join("\n").toLowerCase().includes(at("filter").value.trim().toLowerCase()); }
function shown() { return data.relations.filter((r) => !hidden.has(r.status) && (chosen === null || r.caller === chosen || r.receiver === chosen) && fits(r.caller, r.receiver, ...r.audiences, ...r.scopes)); }

function on(element, draws, pins) {
  // The pointer and the keyboard get the same: a look when they arrive, and what they looked at stays if they press.
  for (const event of ["mouseenter", "focus"]) element.addEventListener(event, draws);
  element.addEventListener("mouseleave", () => { mark(); if (pinned) pinned(); });
  element.addEventListener("blur", () => mark());
  element.addEventListener("click", pins);
  return element;
}

const arrow = (from, to) => [made("bdi", "", from), " → ", made("bdi", "", to)];

function card(kind, from, to, what, why, draws) {
  const button = made("button", `problem ${kind}`), names = made("strong");
  names.append(...arrow(from, to));
  button.append(names, made("em", "", what), made("small", "", why));
  return on(button, draws, () => { pinned = draws; draws(); at("detail").scrollIntoView({ block: "nearest" }); });
}

function column(side, names, current) {
  const list = at(SIDES[side]), own = new Map();
  for (const r of current) own.set(r[side], own.has(r[side]) ? [...own.get(r[side]), r] : [r]);
  list.replaceChildren(...names.filter((name) => own.has(name)).map((name, place) => {
    const wrong = own.get(name).find(problem), button = made("button", `service${wrong ? ` bad ${wrong.status}` : ""}`), item = made("li");
    button.append(made("bdi", "", name));
    button.title = visible(name); button.dataset.name = name; button.tabIndex = place ? -1 : 0;
    button.setAttribute("aria-pressed", String(chosen === name));
    const draws = () => { mark((r) => r[side] === name || chosen === name); service(side, name); };
    on(button, draws, () => { choose(chosen === name ? null : name, side); });
    button.addEventListener("focus", () => { for (const each of list.querySelectorAll(".service")) each.tabIndex = each === button ? 0 : -1; });
    item.append(button);
    return item;
  }));
  return new Map(names.filter((name) => own.has(name)).map((name, place) => [name, place + 0.5]));
}

function choose(name, side) {
  chosen = name;
  pinned = name === null ? null : () => service(side, name);
  at("plan").hidden = !data.plan; at("plan").append(made("code", "", data.plan));
draw();
  const button = name !== null && [...at(SIDES[side]).querySelectorAll(".service")].find((each) => each.dataset.name === name);
  if (button) { button.focus(); service(side, name); }
}

function mark(own) {
  const current = own ? shown().filter(own) : [], names = { callers: new Set(current.map((r) => r.caller)), receivers: new Set(current.map((r) => r.receiver)) };
  const keys = new Set(current.map((r) => r.number));
  const set = (element, is) => { element.classList.toggle("off", Boolean(own) && !is); element.classList.toggle("on", Boolean(own) && is); };
  for (const path of at("lines").children) set(path, keys.has(Number(path.dataset.relation)));
  for (const list in names) for (const button of at(list).querySelectorAll(".service")) set(button, names[list].has(button.dataset.name));
}

function draw() {
  const current = shown(), from = column("caller", data.callers, current), to = column("receiver", data.receivers, current);
  const lost = data.unanswered.filter((u) => (chosen === null || u.caller === chosen) && fits(u.caller, u.audience));
  const cards = current.filter(problem).map((r) => card(r.status, r.caller, r.receiver, label(r), about(r), () => { mark((one) => one === r); relation(r); }));
  at("problems").replaceChildren(...cards, ...lost.map((u) => card("unanswered", u.caller, u.audience, "no given app accepts this audience", "", () => open(arrow(u.caller, u.audience), [made("p", "unanswered", "No given app accepts this audience. Give the access file of the app that does, or correct the audience in the caller.")]))));
  // One row is one unit high and the column of lines MIDDLE wide, whatever the size of the window, of the text or of the paper.
  const svg = at("lines"), paths = [], rows = Math.max(from.size, to.size, 1);
  svg.setAttribute("viewBox", `0 0 ${2 * MIDDLE} ${rows}`); svg.style.setProperty("--rows", rows);
  for (const r of [...current].sort((a, b) => problem(a) - problem(b))) {
    const d = `M0,${from.get(r.caller)} C${MIDDLE},${from.get(r.caller)} ${MIDDLE},${to.get(r.receiver)} ${2 * MIDDLE},${to.get(r.receiver)}`;
    for (const kind of [r.status, "near"]) {
      const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
      path.setAttribute("d", d); path.setAttribute("class", r.dpop && kind !== "near" ? `${kind} bound` : kind); path.dataset.relation = r.number; paths.push(path);
    }
  }
  svg.replaceChildren(...paths);
  at("rows").replaceChildren(...[...current].sort((a, b) => problem(b) - problem(a)).map((r) => { const row = made("tr", r.status); row.append(...[r.caller, r.receiver, [[label(r), bound(r)].filter(Boolean).join(", "), r.note].filter(Boolean).join(": "), r.audiences.join(" "), r.scopes.join(" "), routes(r)].map((text) => made("td", "", text))); return row; }), ...lost.map((u) => { const row = made("tr", "unanswered"); row.append(...[u.caller, "", "no given app accepts this audience", u.audience, "", ""].map((text) => made("td", "", text))); return row; }));
  at("nothing").hidden = current.length + lost.length > 0;
  at("summary").replaceChildren(whole, verdict, current.length === data.relations.length ? "" : ` Shown: ${current.length}.`);
  at("all").hidden = chosen === null; at("all").textContent = chosen === null ? "" : `only ${visible(chosen)}: show all (Esc)`;
  if (pinned) pinned(); else hint();
}

function open(title, parts) {
  const head = made("h2"), close = made("button", "close", "close");
  head.append(...title);
  close.addEventListener("click", back);
  at("detail").className = "";
  at("detail").replaceChildren(close, head, ...parts);
}

function back() { pinned = null; choose(null); mark(); }

function hint() {
  at("detail").className = "idle";
  at("detail").replaceChildren(made("h2", "", "What a line says"), made("p", "", "Point at a name, a card or a line: here is the token that Keycloak issues for it, and what each route answers."), made("p", "", "Press a name to see only what it calls and who calls it. Arrow keys move from name to name, / goes to the filter, Esc goes back."));
}

const routes = (r) => r.routes.length ? `${r.routes.filter((route) => route.accepted).length} of ${r.routes.length}` : "";

const bound = (r) => r.dpop ? "with a bound token" : "";

function about(r) { return [r.note, bound(r), r.audiences.length ? `audience ${r.audiences.join(", ")}` : "", r.scopes.length ? `scope ${r.scopes.join(", ")}` : "", r.cure].filter(Boolean).join(" · "); }

function token(claims) { const lines = JSON.stringify(claims, null, 1).split("\n").map(visible).join("\n"), pre = made("pre"); pre.textContent = lines; return [made("h3", "", "Token (without dates and ids)"), pre]; }

function relation(r) {
  const parts = [made("p", r.status, label(r))];
  if (r.dpop) parts.push(made("p", "", "The token is bound to a key of the caller (DPoP)."));
  if (r.note) parts.push(made("p", "", r.status === "not_granted" ? `Keycloak answers ${r.note}` : r.note));
  if (r.cure && !r.routes.some((route) => route.cure === r.cure)) parts.push(made("p", "", r.cure));
  for (const [name, list] of [["Audiences", r.audiences], ["Scopes", r.scopes]]) if (list.length) parts.push(made("h3", "", name), made("div", "", list.join(", ")));
  if (r.routes.length) { const list = made("ul"); for (const route of r.routes) list.append(made("li", route.accepted ? "yes" : "no", route.accepted ? `${route.route}: accepted${route.cure ? `. ${route.cure}` : ""}` : `${route.route}: ${route.reason}. ${route.cure}`)); parts.push(made("h3", "", "Routes"), list); }
  if (r.token) parts.push(...token(r.token));
  open(arrow(r.caller, r.receiver), parts);
}

function service(side, name) {
  const own = shown().filter((r) => r[side] === name), list = made("ul"), parts = [made("h3", "", side === "caller" ? "calls" : "is called by"), list];
  for (const r of own) {
    const item = made("li"), button = made("button", `one ${r.status}`, `${side === "caller" ? r.receiver : r.caller}: ${label(r)}`);
    button.addEventListener("click", () => { pinned = () => relation(r); relation(r); }); item.append(button); list.append(item);
  }
  if (side === "caller") for (const text of new Set(own.filter((r) => r.token).map((r) => JSON.stringify(r.token)))) parts.push(...token(JSON.parse(text)));
  open([made("bdi", "", name)], parts);
}

function move(event) {
  const button = event.target.closest("#stage .service");
  if (!button) return;
  const side = button.closest("ol").id === "callers" ? "caller" : "receiver", other = side === "caller" ? "receiver" : "caller";
  const here = [...at(SIDES[side]).querySelectorAll(".service")], place = here.indexOf(button);
  let next = { ArrowDown: here[place + 1], ArrowUp: here[place - 1], Home: here[0], End: here.at(-1) }[event.key];
  if (event.key === (side === "caller" ? "ArrowRight" : "ArrowLeft")) {
    const partners = new Set(shown().filter((r) => r[side] === button.dataset.name).map((r) => r[other]));
    next = [...at(SIDES[other]).querySelectorAll(".service")].find((each) => partners.has(each.dataset.name));
  }
  if (next) { event.preventDefault(); next.focus(); }
}

at("lines").addEventListener("mouseover", (event) => { const r = data.relations[event.target.dataset.relation]; if (r) { mark((one) => one === r); relation(r); } });
at("lines").addEventListener("mouseleave", () => { mark(); if (pinned) pinned(); });
at("lines").addEventListener("click", (event) => { const r = data.relations[event.target.dataset.relation]; if (r) pinned = () => relation(r); });
at("filter").addEventListener("input", draw);
at("all").addEventListener("click", back);
addEventListener("keydown", (event) => {
  if (event.key === "Escape") back();
  if (event.key === "/" && document.activeElement !== at("filter")) { event.preventDefault(); at("filter").focus(); }
  move(event);
});
at("plan").hidden = !data.plan; at("plan").append(made("code", "", data.plan));
draw();
