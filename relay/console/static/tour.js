// The tour's page: draws what the relay says, sends what the visitor does. Texts are set as text, never as HTML.
"use strict";
const token = document.querySelector('meta[name="relais-demo"]').content;
const at = (id) => document.getElementById(id);
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const clock = (iso) => new Date(iso).toLocaleTimeString("fr-FR");
let shown = null; // the last state
let skew = 0; // the relay's clock minus this browser's, in ms
let chosen = document.querySelector('[role="tab"]').dataset.chat;

function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// French signs never stand alone at the end or the start of a line.
const set = (text) => text.replace(/« /g, "«\u00a0").replace(/ ([»:?!;])/g, "\u00a0$1");

// A reference stays on one line.
function withReferences(tag, text) {
  const pieces = text.split(/(Réf\. [0-9A-Z]{4}-[0-9A-Z]{4})/);
  return make(tag, {}, ...pieces.map((piece, place) => (place % 2 ? make("span", { className: "ref", textContent: piece }) : piece)));
}

function say(text) {
  const toast = at("toast");
  toast.textContent = text;
  toast.hidden = false;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => { toast.hidden = true; }, 5000);
}

async function act(name, asked = {}) {
  try {
    const answer = await fetch(`/demo/${name}`, {
      method: "POST", body: JSON.stringify(asked), headers: { "content-type": "application/json", "x-relais-demo": token },
    });
    if (answer.ok) return true;
    say(answer.status === 409 ? (await answer.json()).error : "La page a vieilli : rechargez-la.");
  } catch {
    say("Le relais ne répond pas.");
  }
  return false;
}

// Keep the nodes of what did not change: somebody may be writing in one of them.
function keep(box, rows, keyOf, draw) {
  const old = new Map([...box.querySelectorAll(":scope > [data-key]")].map((node) => [node.dataset.key, node]));
  let before = box.firstElementChild;
  for (const row of rows) {
    const key = String(keyOf(row));
    const print = JSON.stringify(row);
    let node = old.get(key);
    old.delete(key);
    if (!node || node.dataset.print !== print) {
      const next = draw(row, node);
      next.dataset.key = key;
      next.dataset.print = print;
      if (node && node !== next) { if (before === node) before = next; node.replaceWith(next); }
      node = next;
    }
    if (node === before) before = before.nextElementSibling;
    else box.insertBefore(node, before);
  }
  for (const gone of old.values()) gone.remove();
}

function drawLetter(letter) {
  const button = make("button", { type: "button", className: "main", disabled: letter.sent, textContent: letter.sent ? "Envoyée ✓" : "Envoyer" });
  button.setAttribute("aria-label", `Envoyer : ${letter.title}`);
  button.addEventListener("click", async () => { button.disabled = true; if (!await act("send", { letter: letter.key })) button.disabled = false; });
  const files = letter.attachments.length ? `\n\nPièces jointes : ${letter.attachments.join(", ")}` : "";
  const first = shown && !shown.letters.length && letter.key === shown.outbox[0].key;
  return make("li", { className: `card letter${first ? " first" : ""}${letter.sent ? " sent" : ""}` },
    make("b", { textContent: set(letter.title) }),
    button,
    make("details", { className: "quiet" }, make("summary", {}, `${letter.patient}, ${letter.hint} · `, make("u", { textContent: "lire" })),
      make("pre", { className: "words", textContent: letter.text + files })));
}

function answerForm(mail, whose) {
  const area = make("textarea", { rows: mail.draft ? 3 : 2, value: mail.draft, id: `answer-${mail.number}` });
  const send = (text) => act("answer", { mail: mail.number, text });
  const form = make("form", {},
    make("label", { className: "hidden", htmlFor: area.id, textContent: "Votre réponse" }), area,
    make("button", { type: "submit", className: "main", textContent: "Répondre" }));
  area.placeholder = whose === "doctor" ? "Ou écrivez votre question…" : "Votre réponse…";
  form.addEventListener("submit", (event) => { event.preventDefault(); if (area.value.trim()) send(area.value); });
  if (!mail.quick.length) return form;
  const quick = make("div", { className: "words-quick", ariaLabel: "Répondre d'un mot" });
  for (const [word, meaning] of mail.quick) {
    const button = make("button", { type: "button", textContent: word, title: meaning });
    button.setAttribute("aria-label", `${word} : ${meaning}`);
    button.addEventListener("click", () => send(word));
    quick.append(button);
  }
  return make("div", {}, quick, form);
}

function drawMail(whose) {
  return (mail, old) => {
    if (old) { // only these two change once a mail is there
      old.classList.toggle("new", !mail.opened);
      if (mail.answered && !old.querySelector(".answered")) old.querySelector(".reply").replaceChildren(answered(mail));
      return old;
    }
    const files = make("ul", { className: "files" }, ...mail.attachments.map((name, place) =>
      make("li", {}, make("a", { href: `/demo/mail/${mail.number}/${place}`, textContent: name, download: "" }))));
    const node = make("details", { className: `card mail${mail.opened ? "" : " new"}` },
      make("summary", {}, withReferences("b", mail.subject),
        make("span", { className: "quiet", textContent: mail.from }), make("time", { textContent: clock(mail.at), dateTime: mail.at })),
      make("div", { className: "body" }, make("pre", { className: "words", textContent: mail.text }),
        mail.attachments.length ? files : null,
        make("div", { className: "reply" }, mail.answered ? answered(mail) : answerForm(mail, whose))));
    node.addEventListener("toggle", () => { if (node.open && node.classList.contains("new")) act("open", { mail: mail.number }); });
    return node;
  };
}

const answered = (mail) => make("p", { className: "answered", textContent: `Votre réponse : ${mail.answered}` });

function drawStory(story, old) {
  const stages = make("ol", { className: "stages" }, ...story.stages.map((stage) =>
    make("li", { className: stage.tone || "", textContent: stage.name })));
  const moments = make("ol", { className: "moments" }, ...story.moments.map((moment) =>
    make("li", {}, make("time", { textContent: clock(moment.at), dateTime: moment.at }), make("span", { className: moment.tone, textContent: set(moment.text) }))));
  const news = old && old.dataset.count !== String(story.moments.length);
  const node = make("article", { className: `card story ${story.tone}${news ? " news" : ""}` },
    make("div", { className: "title" }, make("b", { textContent: story.patient }), story.reference ? make("code", { textContent: `Réf. ${story.reference}` }) : null),
    make("span", { className: `state ${story.tone}`, textContent: story.state }), stages,
    make("details", {}, make("summary", { textContent: "Détail" }), moments));
  const details = node.querySelector("details");
  details.open = old ? old.querySelector("details").open : true;
  node.dataset.count = story.moments.length;
  node.dataset.touched = old?.dataset.touched || "";
  details.querySelector("summary").addEventListener("click", () => { node.dataset.touched = "yes"; });
  if (story.next) {
    const left = make("b", { className: "left" });
    left.dataset.at = story.next.at;
    node.append(make("div", { className: "next" }, make("span", { textContent: `Sinon : ${story.next.text.toLowerCase()}` }), left));
  }
  return node;
}

function count(node, number, what) {
  node.hidden = !number;
  node.textContent = number || "";
  node.setAttribute("aria-label", `${number} ${what}`);
}

// What a first visitor may try next.
function advice(state) {
  const letters = state.letters;
  const reached = (tone) => letters.find((story) => story.stages[4].tone === tone);
  const held = letters.find((story) => story.tone === "warn" && story.stages[2].tone === "warn");
  if (!letters.length) return "Pour commencer, envoyez la première lettre.";
  if (held) return "Dans le doute, rien ne part. Le service a reçu un courriel : ouvrez-le, il est déjà complété, répondez.";
  if (reached("wait")) return "Le médecin est prévenu. Pressez « Bien reçu » sur son téléphone, ou laissez passer le temps : le relais le relance.";
  const doubt = state.outbox.find((letter) => letter.key === "homonyme");
  if (reached("done") && doubt && !doubt.sent) return "Quelqu'un en répond : le suivi s'arrête là. Essayez maintenant la lettre « Dr Saule » : lequel ?";
  if (reached("warn")) return "Personne n'a répondu à temps : le bureau des sorties de l'hôpital prend le relais.";
  if (reached("done")) return "À vous : posez une question au service depuis la messagerie du médecin, ou écrivez votre propre lettre.";
  return "La lettre est en route…";
}

function draw(state) {
  shown = state;
  skew = new Date(state.now) - Date.now();
  keep(at("outbox"), state.outbox.map((letter) => ({ ...letter, round: state.round, first: !state.letters.length })), (letter) => `${state.round}-${letter.key}`, drawLetter);
  at("again").hidden = !state.outbox.every((letter) => letter.sent);
  keep(at("ward"), state.ward, (mail) => mail.number, drawMail("ward"));
  keep(at("desk"), state.desk, (mail) => mail.number, drawMail("desk"));
  at("desk-part").hidden = !state.desk.length;
  count(at("ward-count"), state.ward.filter((mail) => !mail.opened).length, "non lus");
  for (const doctor of state.doctors) {
    const tab = at(`tab-${doctor.chat}`);
    count(tab.querySelector(".count"), doctor.mails.filter((mail) => !mail.opened).length, "non lus");
    if (doctor.chat === chosen) keep(at("doctor"), doctor.mails, (mail) => mail.number, drawMail("doctor"));
  }
  const said = set(advice(state));
  if (at("coach").textContent !== said) at("coach").textContent = said;
  keep(at("stories"), state.letters, (story) => story.id, drawStory);
  for (const [place, node] of [...at("stories").querySelectorAll(".story")].entries()) {
    if (!node.dataset.touched) node.querySelector("details").open = place < 1;
  }
  tick();
}

function tick() {
  for (const node of document.querySelectorAll(".left")) {
    const seconds = Math.max(0, Math.round((new Date(node.dataset.at) - Date.now() - skew) / 1000));
    node.textContent = seconds > 90 ? `dans ${Math.round(seconds / 60)} min` : `dans ${seconds} s`;
  }
}
setInterval(tick, 500);

const tabs = [...document.querySelectorAll('[role="tab"]')];
function choose(tab, focus) {
  if (tab.dataset.chat === chosen) return;
  chosen = tab.dataset.chat;
  for (const each of tabs) { each.setAttribute("aria-selected", String(each === tab)); each.tabIndex = each === tab ? 0 : -1; }
  if (focus) tab.focus();
  at("gp").setAttribute("aria-labelledby", tab.id);
  at("phone").title = `Téléphone du ${tab.firstChild.textContent}`;
  at("phone").contentWindow.location.replace(tab.dataset.path);
  if (shown) draw(shown);
}
for (const [place, tab] of tabs.entries()) {
  tab.addEventListener("click", () => choose(tab));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) { event.preventDefault(); choose(tabs[(place + step + tabs.length) % tabs.length], true); }
  });
}

at("again").querySelector("button").addEventListener("click", () => act("again"));
at("write").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (await act("write", { text: at("letter").value })) event.target.closest("details").open = false;
});

async function follow() {
  for (;;) {
    try {
      const answer = await fetch(`/demo/state?after=${shown ? shown.version : ""}`);
      if (answer.status === 403) { location.reload(); return; }
      if (!answer.ok) throw new Error();
      const state = await answer.json();
      if (shown && state.version === shown.version) await pause(100);
      draw(state);
    } catch {
      await pause(1500);
    }
  }
}
follow();
