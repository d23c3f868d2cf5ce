// The chat page: shows what the relay sends, presses buttons. Texts are set as text, never as HTML.
"use strict";
const meta = (name) => document.querySelector(`meta[name="relais-${name}"]`).content;
const base = `${meta("base")}${meta("chat")}`;
const list = document.getElementById("messages");
const state = document.getElementById("state");
const calm = state.textContent;
const toast = document.getElementById("toast");
const seen = new Set();
let version = "";
let first = true;

const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");

function element(tag, text, properties = {}) {
  const node = Object.assign(document.createElement(tag), properties);
  if (text !== null) node.textContent = text;
  return node;
}

function show(message) {
  const article = element("article", null, { id: `m${message.id}` });
  if (/SIGNALÉE URGENTE/.test(message.text)) article.classList.add("urgent");
  if (!seen.has(message.id) && !first) article.classList.add("new");
  seen.add(message.id);
  const words = element("p", null);
  for (const piece of message.text.split(/([0-9A-Z]{4}-[0-9A-Z]{4})/)) { // a reference stays on one line
    words.append(/^[0-9A-Z]{4}-[0-9A-Z]{4}$/.test(piece) ? element("b", piece) : piece);
  }
  article.append(words);
  for (const row of message.buttons) {
    const line = element("div", null, { className: "row" });
    for (const [label, nonce] of row) {
      const button = element("button", label, { type: "button" });
      button.addEventListener("click", () => press(article, message.id, nonce));
      line.append(button);
    }
    article.append(line);
  }
  if (message.link && /^https?:/.test(message.link[1])) {
    const line = element("div", null, { className: "row" });
    line.append(element("a", message.link[0], { href: message.link[1], rel: "noopener noreferrer", target: "_blank" }));
    article.append(line);
  }
  const at = new Date(message.edited || message.at);
  article.append(element("time", at.toLocaleTimeString("fr-FR", { hour: "2-digit", minute: "2-digit" }), { dateTime: at.toISOString() }));
  return article;
}

function draw(messages) {
  const kept = new Map([...list.children].map((node) => [node.id, node]));
  const low = list.scrollHeight - list.scrollTop - list.clientHeight < 60;
  const focused = document.activeElement?.closest?.("article")?.id;
  let grew = false;
  for (const message of messages) {
    const id = `m${message.id}`;
    const print = JSON.stringify(message);
    const old = kept.get(id);
    kept.delete(id);
    if (old && old.dataset.print === print) continue;
    const node = show(message);
    node.dataset.print = print;
    if (old) old.replaceWith(node); else { list.append(node); grew = true; }
    if (focused === id) { node.tabIndex = -1; node.focus(); }
  }
  for (const gone of kept.values()) gone.remove();
  if (first || low || grew) list.scrollTop = list.scrollHeight;
  first = false;
}

async function post(path, asked) {
  // The same id until it is answered: the relay takes it once, however often it is sent.
  const body = JSON.stringify({ ...asked, id: newId() });
  for (let tries = 0; tries < 6; tries += 1) {
    try {
      const answer = await fetch(`${base}/${path}`, {
        method: "POST", body, headers: { "content-type": "application/json", "x-relais-press": meta("press") },
      });
      if (answer.ok) return await answer.json();
      if (answer.status < 500) return { text: answer.status === 404 ? "Ce message n'est plus là." : "Rechargez la page." };
    } catch { /* the relay is away for a moment: again below */ }
    await pause(700 * (tries + 1));
  }
  return { text: "Le relais ne répond pas. Votre réponse n'est pas enregistrée." };
}

function say(text) {
  if (!text) return;
  toast.textContent = text;
  toast.hidden = false;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => { toast.hidden = true; }, 4500);
}

async function press(article, message, nonce) {
  const buttons = article.querySelectorAll("button");
  for (const button of buttons) button.disabled = true;
  const answer = await post("press", { message, nonce });
  for (const button of buttons) button.disabled = false;
  say(answer.text);
}

document.getElementById("say").addEventListener("submit", async (event) => {
  event.preventDefault();
  const field = document.getElementById("text");
  const text = field.value.trim();
  if (!text) return;
  field.value = "";
  say((await post("text", { text })).text);
});

async function follow() {
  for (;;) {
    try {
      const answer = await fetch(`${base}/messages?after=${encodeURIComponent(version)}`);
      if (answer.status === 403) { state.textContent = "Lien expiré : rechargez la page"; return; }
      if (!answer.ok) throw new Error();
      const news = await answer.json();
      if (news.version === version) await pause(150); // an answer without news comes when the relay is closing
      version = news.version;
      state.textContent = calm;
      draw(news.messages);
    } catch {
      state.textContent = "Connexion…";
      await pause(1500);
    }
  }
}
follow();
