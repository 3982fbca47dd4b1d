// The chat page: conversations live in this browser's storage, answers come from the server that gave the page.

const byId = (id) => document.getElementById(id);
const element = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};

const ALTERNATIVES = 5;
let conversations = read("hornbook.conversations", []);
let currentId = read("hornbook.current", null);
let running = null;

function read(key, otherwise) {
  try { return JSON.parse(localStorage.getItem(key)) ?? otherwise; } catch { return otherwise; }
}

function save() {
  try {
    localStorage.setItem("hornbook.conversations", JSON.stringify(conversations));
    localStorage.setItem("hornbook.current", JSON.stringify(currentId));
  } catch { say("This browser's storage is full: delete a conversation to keep new ones.", true); }
}

function say(text, isWrong = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("wrong", isWrong);
}

const current = () => conversations.find((one) => one.id === currentId);

function begin() {
  const fresh = { id: crypto.randomUUID?.() ?? String(Date.now() + Math.random()), messages: [] };
  conversations.unshift(fresh);
  currentId = fresh.id;
  save();
  draw();
  byId("question").focus();
}

// ---- Settings

const fields = [...document.querySelectorAll("#settings [name]")];
const setting = (name) => fields.find((field) => field.name === name);

function loadSettings() {
  const kept = read("hornbook.settings", {});
  for (const field of fields) {
    if (!(field.name in kept)) continue;
    if (field.type === "checkbox") field.checked = kept[field.name]; else field.value = kept[field.name];
  }
}

function keepSettings() {
  const kept = fields.map((field) => [field.name, field.type === "checkbox" ? field.checked : field.value]);
  localStorage.setItem("hornbook.settings", JSON.stringify(Object.fromEntries(kept)));
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
  byId("list").replaceChildren(...conversations.map((one) => {
    const title = one.messages[0]?.content.slice(0, 40) || "Empty conversation";
    const open = element("button", { textContent: title, onclick: () => choose(one.id) });
    open.setAttribute("aria-current", String(one.id === currentId));
    const remove = element("button", { textContent: "×", onclick: () => forget(one.id) });
    remove.setAttribute("aria-label", `Delete “${title}”`);
    return element("li", {}, open, remove);
  }));
  byId("messages").replaceChildren(...(current()?.messages ?? []).map(drawMessage));
  byId("messages").scrollTop = byId("messages").scrollHeight;
  byId("examples").hidden = Boolean(current()?.messages.length) || !byId("examples").querySelector("button");
  byId("send").hidden = Boolean(running);
  byId("stop").hidden = !running;
  byId("again").disabled = Boolean(running) || !current()?.messages.some((one) => one.role === "assistant");
}

function drawMessage(message) {
  const isMine = message.role === "user";
  const text = element("div", { className: "text" });
  fill(text, message);
  return element("li", { className: message.role },
    element("span", { className: "who", textContent: isMine ? "You" : "Model" }), text);
}

function fill(target, message) {
  if (message.tokens?.length && setting("probabilities").checked) {
    target.replaceChildren(...message.tokens.map(drawToken));
  } else {
    target.textContent = message.content || (message.role === "assistant" ? "…" : "");
  }
}

function drawToken(token) {
  const share = Math.exp(token.logprob);
  const level = share > 0.75 ? 4 : share > 0.4 ? 3 : share > 0.1 ? 2 : 1;
  const made = element("button", { type: "button", className: `p${level}`, textContent: token.token });
  made.title = percent(token.logprob);
  made.setAttribute("aria-label", `${token.token} ${percent(token.logprob)}`);
  made.onclick = () => explain(token);
  return made;
}

const percent = (logprob) => `${(100 * Math.exp(logprob)).toFixed(1)} %`;

function explain(token) {
  const rows = [...token.top_logprobs];
  if (!rows.some((one) => one.token === token.token)) rows.push(token);
  byId("alternatives").replaceChildren(...rows.map((one) =>
    element("tr", { className: one.token === token.token ? "chosen" : "" },
      element("td", { textContent: JSON.stringify(one.token) }), element("td", { textContent: percent(one.logprob) }))));
  byId("token-title").textContent = `In place of ${JSON.stringify(token.token)}`;
  byId("token").showModal();
}

// ---- Talking

function choose(id) {
  running?.abort();
  currentId = id;
  closeList();
  save();
  say("");
  draw();
}

function forget(id) {
  if (id === currentId) running?.abort();
  conversations = conversations.filter((one) => one.id !== id);
  if (id === currentId) currentId = conversations[0]?.id ?? null;
  if (!currentId) begin(); else { save(); draw(); }
}

async function answer(conversation) {
  const asked = conversation.messages.map(({ role, content }) => ({ role, content }));
  const message = { role: "assistant", content: "", tokens: [] };
  conversation.messages.push(message);
  const mine = running = new AbortController();
  draw();
  say("The model is writing.");
  let finish = "stop";
  try {
    const response = await complete(asked, mine.signal);
    for await (const event of events(response.body)) {
      if (event.error) throw new Error(event.error.message);
      const choice = event.choices[0];
      if (!choice) continue;
      message.content += choice.delta.content ?? "";
      message.tokens.push(...(choice.logprobs?.content ?? []));
      finish = choice.finish_reason ?? finish;
      show(conversation, message);
    }
    say(finish === "length" ? "The answer was cut off: there was no room for more." : "The answer is complete.");
  } catch (problem) {
    if (problem.name === "AbortError") say("Stopped.");
    else {
      if (!message.content) conversation.messages.pop();
      say(`That did not work: ${problem.message}`, true);
    }
  } finally {
    if (running === mine) running = null;
    save();
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
  save();
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

loadSettings();
if (!current()) { if (conversations.length) currentId = conversations[0].id; else begin(); }
draw();
fetch("/v1/models", { headers: headers() }).then(async (response) => {
  if (response.ok) byId("model").textContent = (await response.json()).data[0].id;
  else say("The server wants an API key: put it into the settings.", true);
}).catch(() => say("The server cannot be reached.", true));
fetch("/page/examples.json").then(async (response) => { if (response.ok) propose(await response.json()); });
