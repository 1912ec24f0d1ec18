"use strict";
// Shows one pair at a time and hands each judgement in before it moves on. Everything said by a model is put in as text, never as markup.
const token = location.hash.slice(1);
const at = (id) => document.getElementById(id);
const buttons = Array.from(document.querySelectorAll("button[data-choice]"));
let state = null, busy = false;

function warn(text) {
  at("note").textContent = text;
  at("note").hidden = !text;
}

async function call(place, body) {
  const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
  const reply = await fetch(`/api/pairs/${place}`, body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers });
  const value = await reply.json();
  if (!reply.ok) throw new Error(value.error);
  return value;
}

async function guarded(work) {
  if (busy) return;
  busy = true;
  buttons.forEach((button) => { button.disabled = true; });
  try {
    await work();
    warn("");
  } catch (error) {
    warn(error instanceof TypeError ? "The server does not answer; your earlier judgements are kept. Try again." : error.message);
  } finally {
    busy = false;
    buttons.forEach((button) => { button.disabled = Boolean(state?.closed); });
  }
}

function put(id, text) {
  at(id).textContent = text || "(empty answer)";
  at(id).classList.toggle("empty", !text);
}

function showMessages(messages) {
  at("asked").replaceChildren(...messages.map((message) => {
    const turn = document.createElement("p"), role = document.createElement("b");
    role.textContent = message.role;
    turn.dir = "auto";
    turn.append(...(messages.length > 1 ? [role] : []), message.content);
    return turn;
  }));
}

function show(pair) {
  state = pair;
  at("where").textContent = `${pair.reviewer} · pair ${pair.place} of ${pair.total} · ${pair.done} judged`;
  at("progress").max = pair.total;
  at("progress").value = pair.done;
  showMessages(pair.messages);
  put("a", pair.a);
  put("b", pair.b);
  at("comment").value = pair.vote?.comment ?? "";
  buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.choice === pair.vote?.choice)));
  for (const side of ["a", "b"]) at(`side-${side}`).classList.toggle("chosen", pair.vote?.choice === side);
  at("back").disabled = pair.place === 1;
  at("forward").disabled = pair.place === pair.total;
  at("pair").hidden = false;
  at("done").hidden = true;
  if (pair.closed) warn("This review is closed.");
  window.scrollTo(0, 0);
}

function finish(progress) {
  at("where").textContent = `${progress.reviewer} · ${progress.done} of ${progress.total} judged`;
  at("progress").max = progress.total;
  at("progress").value = progress.done;
  at("pair").hidden = true;
  at("done").hidden = false;
}

const go = (place) => guarded(async () => { if (place >= 1 && place <= state.total) show(await call(place)); });

const vote = (choice) => guarded(async () => {
  const progress = await call(state.place, { choice, comment: at("comment").value });
  if (document.activeElement instanceof HTMLElement) document.activeElement.blur();
  const following = state.vote && state.place < state.total ? state.place + 1 : progress.next;
  if (following === null) finish(progress);
  else show(await call(following));
});

const start = () => guarded(async () => {
  if (!token) throw new Error("Open the link you were given, with everything behind the #.");
  const first = await call(1);
  if (first.next === null) { state = first; finish(first); } else show(first.next === 1 ? first : await call(first.next));
});

buttons.forEach((button) => button.addEventListener("click", () => vote(button.dataset.choice)));
at("back").addEventListener("click", () => go(state.place - 1));
at("forward").addEventListener("click", () => go(state.place + 1));
at("again").addEventListener("click", () => go(1));
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || at("pair").hidden) return;
  if (event.target === at("comment")) { if (event.key === "Escape") event.target.blur(); return; }
  const choice = { a: "a", b: "b", t: "tie", x: "both_bad", 1: "a", 2: "b" }[event.key.toLowerCase()];
  if (choice) vote(choice);
  else if (event.key === "ArrowLeft") go(state.place - 1);
  else if (event.key === "ArrowRight") go(state.place + 1);
  else if (event.key === "c") { event.preventDefault(); at("comment").focus(); }
});
addEventListener("hashchange", () => location.reload());
start();
