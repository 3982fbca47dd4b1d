// The chat page: conversations live in this browser's storage, answers come from the server that gave the page.

const byId = (id) => document.getElementById(id);
const element = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};

const ALTERNATIVES = 5;
let running = null;

function say(text, isWrong = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("wrong", isWrong);
}

// ---- What the browser keeps

/* Each conversation has a key of its own, so that no tab writes over what another one keeps. */
const PREFIX = "hornbook.conversation.";
const newId = () => crypto.randomUUID?.() ?? String(Date.now() + Math.random());
const newestFirst = (one, other) => other.begun - one.begun;
const textsOf = (messages) => messages.map(({ role, content }) => ({ role, content }));
const current = () => conversations.find((one) => one.id === currentId);

let conversations = storedKeys().map((key) => read("localStorage", key)).filter(Boolean);
takeOver();
conversations.sort(newestFirst);
let currentId = read("sessionStorage", "hornbook.current");

// A browser may refuse all storage; then nothing is kept, but the page works.

function storedKeys() {
  try { return Object.keys(localStorage).filter((key) => key.startsWith(PREFIX)); } catch { return []; }
}

function read(area, key) {
  try { return JSON.parse(window[area].getItem(key)); } catch { return null; }
}

function keep(area, key, value) {
  try { window[area].setItem(key, JSON.stringify(value)); } catch {
    say("This browser's storage is full, or switched off: delete a conversation to make room.", true);
  }
}

function erase(key) {
  try { localStorage.removeItem(key); } catch { /* nothing was kept */ }
}

/* Only texts are kept: with their probabilities, a hundred answers would fill the storage. */
function save(conversation) {
  // It may have been deleted while its answer was coming.
  if (!conversations.includes(conversation)) return;
  const { id, begun, messages } = conversation;
  keep("localStorage", PREFIX + id, { id, begun, messages: textsOf(messages) });
}

/* Before each had its own key, one key held all conversations, the newest first. */
function takeOver() {
  const old = read("localStorage", "hornbook.conversations") ?? [];
  erase("hornbook.conversations");
  erase("hornbook.current");
  for (const [place, { messages }] of old.entries()) {
    if (!messages.length) continue;
    conversations.push({ id: newId(), begun: -place, messages });
    save(conversations.at(-1));
  }
}

/* Another tab has kept or deleted a conversation. */
function follow({ key }) {
  if (!key?.startsWith(PREFIX)) return;
  const id = key.slice(PREFIX.length);
  const kept = read("localStorage", key);
  if (!kept) { drop(id); return; }
  if (running && id === currentId) {
    // Both tabs talk in it at once: what is being written here goes on as a conversation of its own.
    const mine = current();
    mine.id = newId();
    save(mine);
    turnTo(mine.id);
  }
  conversations = [...conversations.filter((one) => one.id !== id), kept].sort(newestFirst);
  if (id === currentId) draw(); else drawList();
}

// ---- Settings

const fields = [...document.querySelectorAll("#settings [name]")];
const setting = (name) => fields.find((field) => field.name === name);

function loadSettings() {
  const kept = read("localStorage", "hornbook.settings") ?? {};
  for (const field of fields) {
    if (!(field.name in kept)) continue;
    if (field.type === "checkbox") field.checked = kept[field.name]; else field.value = kept[field.name];
  }
}

function keepSettings() {
  const kept = fields.map((field) => [field.name, field.type === "checkbox" ? field.checked : field.value]);
  keep("localStorage", "hornbook.settings", Object.fromEntries(kept));
  draw();
}

function requestBody(messages) {
  const body = { messages, truncation: "auto", stream: true, logprobs: true, top_logprobs: ALTERNATIVES };
  for (const name of ["temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens", "seed"]) {
    const { value } = setting(name);
    if (value !== "") body[name] = Number(value);
  }
  const system = setting("system").value.trim();
  if (system) body.messages = [{ role: "system", content: system }, ...messages];
  return body;
}

function headers() {
  const key = setting("key").value;
  return { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

// ---- Drawing

function draw() {
  drawList();
  byId("messages").replaceChildren(...(current()?.messages ?? []).map(drawMessage));
  byId("messages").scrollTop = byId("messages").scrollHeight;
  byId("examples").hidden = Boolean(current()?.messages.length) || !byId("examples").querySelector("button");
  byId("send").hidden = Boolean(running);
  byId("stop").hidden = !running;
  byId("again").disabled = Boolean(running) || !current()?.messages.some((one) => one.role === "assistant");
}

function drawList() {
  byId("list").replaceChildren(...conversations.map((one) => {
    const title = one.messages[0]?.content.slice(0, 40) || "Empty conversation";
    const open = element("button", { textContent: title, onclick: () => choose(one.id) });
    open.setAttribute("aria-current", String(one.id === currentId));
    const remove = element("button", { textContent: "×", onclick: () => forget(one.id) });
    remove.setAttribute("aria-label", `Delete “${title}”`);
    return element("li", {}, open, remove);
  }));
}

function drawMessage(message) {
  const isMine = message.role === "user";
  const text = element("div", { className: "text" });
  fill(text, message);
  return element("li", { className: message.role },
    element("span", { className: "who", textContent: isMine ? "You" : "Model" }), text);
}

function fill(target, message) {
  if (message.content && message.pieces && setting("probabilities").checked) {
    target.replaceChildren(...message.pieces.map(drawPiece));
  } else {
    target.textContent = message.content || (message.role === "assistant" ? "…" : "");
  }
}

/* Text, and the tokens that it came with: several where a character is spread over them. */
function drawPiece(piece) {
  const logprob = piece.tokens.reduce((sum, token) => sum + token.logprob, 0);
  const share = Math.exp(logprob);
  const level = share > 0.75 ? 4 : share > 0.4 ? 3 : share > 0.1 ? 2 : 1;
  const made = element("button", { type: "button", className: `p${level}`, textContent: piece.text });
  made.title = percent(logprob);
  made.setAttribute("aria-label", `${piece.text} ${percent(logprob)}`);
  made.onclick = () => explain(piece);
  return made;
}

const percent = (logprob) => `${(100 * Math.exp(logprob)).toFixed(1)} %`;

function explain({ text, tokens }) {
  const table = byId("alternatives");
  for (const old of [...table.tBodies]) old.remove();
  table.append(...tokens.map(drawAlternatives));
  const parts = tokens.length > 1 ? `, made of ${tokens.length} tokens` : "";
  byId("token-title").textContent = `In place of ${JSON.stringify(text)}${parts}`;
  byId("token").showModal();
}

function drawAlternatives(token) {
  const rows = [...token.top_logprobs];
  if (!rows.some((one) => isSame(one, token))) rows.push(token);
  return element("tbody", {}, ...rows.map((one) =>
    element("tr", { className: isSame(one, token) ? "chosen" : "" },
      element("td", { textContent: spelling(one) }), element("td", { textContent: percent(one.logprob) }))));
}

/* Special tokens have no bytes, but each has a name of its own. */
const isSame = (one, other) => one.token === other.token && String(one.bytes) === String(other.bytes);

/* Text stands in quotes, since spaces count; special tokens, and bytes that are no characters, as the server names them. */
function spelling({ token, bytes }) {
  const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(new Uint8Array(bytes));
  return text === token ? JSON.stringify(token) : token;
}

// ---- Talking

function turnTo(id) {
  currentId = id;
  keep("sessionStorage", "hornbook.current", id);
  draw();
}

/* A conversation without a question is not kept. */
function begin() {
  conversations.unshift({ id: newId(), begun: Date.now(), messages: [] });
  turnTo(conversations[0].id);
  byId("question").focus();
}

function choose(id) {
  running?.abort();
  closeList();
  say("");
  turnTo(id);
}

function forget(id) {
  erase(PREFIX + id);
  drop(id);
}

function drop(id) {
  if (id === currentId) running?.abort();
  conversations = conversations.filter((one) => one.id !== id);
  if (current()) drawList(); else if (conversations.length) turnTo(conversations[0].id); else begin();
}

async function answer(conversation) {
  const asked = textsOf(conversation.messages);
  const message = { role: "assistant", content: "", pieces: [] };
  conversation.messages.push(message);
  const mine = running = new AbortController();
  draw();
  say("The model is writing.");
  let finish = null;
  try {
    const response = await complete(asked, mine.signal);
    for await (const event of events(response.body)) {
      if (event.error) throw new Error(event.error.message);
      const choice = event.choices[0];
      if (!choice) continue;
      add(message, choice.delta.content ?? "", choice.logprobs?.content ?? []);
      finish = choice.finish_reason ?? finish;
      show(conversation, message);
    }
    if (!finish) throw new Error("the server ended the connection.");
    say(finish === "length" ? "The answer was cut off: there was no room for more." : "The answer is complete.");
  } catch (problem) {
    if (problem.name === "AbortError") say("Stopped.");
    else if (message.content) say(`The answer broke off: ${problem.message}`, true);
    else {
      conversation.messages.pop();
      say(`That did not work: ${problem.message}`, true);
    }
  } finally {
    if (running === mine) running = null;
    save(conversation);
    draw();
  }
}

/* The server leaves out what no longer fits into the context, the oldest turns first, and says how many messages. */
async function complete(asked, signal) {
  const response = await fetch("/v1/chat/completions", {
    method: "POST", headers: headers(), body: JSON.stringify(requestBody(asked)), signal,
  });
  if (!response.ok) throw new Error((await response.json().catch(() => null))?.error?.message ?? response.statusText);
  if (Number(response.headers.get("X-Messages-Left-Out")))
    say("The model is writing. The beginning of this conversation no longer fits, and was left out.");
  return response;
}

function add(message, text, tokens) {
  message.content += text;
  const last = message.pieces.at(-1);
  // At the end, text can come without a token, and a token without text.
  if (last && !(text && tokens.length)) { last.text += text; last.tokens.push(...tokens); }
  else message.pieces.push({ text, tokens });
}

function show(conversation, message) {
  if (conversation.id !== currentId) return;
  const list = byId("messages");
  const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 80;
  fill(list.lastElementChild.querySelector(".text"), message);
  if (isAtEnd) list.scrollTop = list.scrollHeight;
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data !== "[DONE]") yield JSON.parse(data);
    }
  }
}

function propose(texts) {
  byId("examples").append(...texts.map((text) =>
    element("button", { type: "button", className: "plain", textContent: text, onclick: () => ask(text) })));
  draw();
}

function send() {
  const content = byId("question").value.trim();
  if (!content || running) return;
  byId("question").value = "";
  ask(content);
}

function ask(content) {
  const conversation = current();
  if (conversation.messages.at(-1)?.role === "user") conversation.messages.pop();
  conversation.messages.push({ role: "user", content });
  save(conversation);
  answer(conversation);
}

function again() {
  const conversation = current();
  if (running || !conversation) return;
  while (conversation.messages.at(-1)?.role === "assistant") conversation.messages.pop();
  if (conversation.messages.length) answer(conversation);
}

// ---- Panels

function toggle(button, isOpen) { button.setAttribute("aria-expanded", String(isOpen)); }
function closeList() { byId("conversations").classList.remove("open"); toggle(byId("show-list"), false); }

byId("show-list").onclick = () =>
  toggle(byId("show-list"), byId("conversations").classList.toggle("open"));
byId("show-settings").onclick = () => {
  byId("settings").hidden = !byId("settings").hidden;
  toggle(byId("show-settings"), !byId("settings").hidden);
};
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || byId("token").open) return;
  if (running) running.abort();
  else if (!byId("settings").hidden) { byId("show-settings").click(); byId("show-settings").focus(); }
  else closeList();
});
byId("ask").onsubmit = (event) => { event.preventDefault(); send(); };
byId("question").onkeydown = (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); }
};
byId("stop").onclick = () => { running?.abort(); byId("question").focus(); };
byId("again").onclick = again;
byId("new").onclick = () => { running?.abort(); closeList(); begin(); };
for (const field of fields) field.onchange = keepSettings;
addEventListener("storage", follow);

loadSettings();
if (!currentId && conversations.length) currentId = conversations[0].id;
if (current()) draw(); else begin();
fetch("/v1/models", { headers: headers() }).then(async (response) => {
  if (response.ok) byId("model").textContent = (await response.json()).data[0].id;
  else say("The server wants an API key: put it into the settings.", true);
}).catch(() => say("The server cannot be reached.", true));
fetch("/page/examples.json").then(async (response) => { if (response.ok) propose(await response.json()); });
