// My videos and saved people, from the HTTP API. The stage says when something has changed.
const { api, relative } = window.dreampose;
const STATES = { failed: "Did not work", cancelled: "Stopped", queued: "Waiting", interrupted: "Paused", running: "Being made", cancelling: "Stopping" };
const made = (tag, how = {}, ...inside) => { const node = Object.assign(document.createElement(tag), how); node.append(...inside); return node; };
const ago = (when) => {
  const seconds = (Date.now() - new Date(when)) / 1000;
  for (const [unit, length] of [["day", 86400], ["hour", 3600], ["minute", 60]])
    if (seconds >= length) { const n = Math.floor(seconds / length); return `${n} ${unit}${n > 1 ? "s" : ""} ago`; }
  return "just now";
};

const spoken = (title) => (title.charAt(0).toUpperCase() + title.slice(1)).replaceAll("-", ", ").replaceAll("_", " ");

function menu(items) {
  const box = made("details", { className: "menu" }, made("summary", { ariaLabel: "Actions", textContent: "⋯" }));
  box.append(made("div", {}, ...items.map(([words, action]) => made("button", { textContent: words, onclick: () => { box.open = false; action(); } }))));
  return box;
}

async function change(work) {
  try { await work(); } catch (problem) { alert(problem.message); }
  await refresh();
}

const json = (method, body) => ({ method, body: body && JSON.stringify(body) });
function video(job) {
  const name = job.name ?? spoken(job.title);
  const picture = job.picture ? made("img", { src: relative(job.picture), alt: "", loading: "lazy" }) : made("span", { className: "blank" });
  const open = made("button", { className: "open", onclick: () => window.dreampose.open(job.id) }, picture, made("strong", { textContent: name }),
    made("small", { textContent: `${STATES[job.state] ?? ""} ${ago(job.created)}`.trim() }));
  return made("li", {}, open, menu([
    ["Use its photo and motion again", () => trigger("again", { id: job.id })],
    ["Compare with the one above", () => window.dreampose.compare(job)],
    ["Rename", () => { const given = prompt("Name of this video", name); if (given) change(() => api(`jobs/${job.id}`, json("PATCH", { name: given }))); }],
    ["Delete", () => { if (confirm(`Delete ${name} and all its files?`)) change(() => api(`jobs/${job.id}`, json("DELETE")).then(() => window.dreampose.forget(job.id))); }],
  ]));
}

function person(subject) {
  const open = made("button", { className: "open", onclick: () => trigger("use", { key: subject.key }) },
    made("img", { src: relative(subject.picture), alt: "", loading: "lazy" }), made("small", { textContent: `used ${ago(subject.used)}` }));
  return made("li", {}, open, menu([
    ["Animate again", () => trigger("use", { key: subject.key })],
    [`Download weights (${subject.megabytes} MB)`, () => { location.href = relative(subject.weights); }],
    ["Delete", () => { if (confirm("Delete this saved person?")) change(() => api(`subjects/${subject.key}`, json("DELETE"))); }],
  ]));
}

let working = false; // whether a video is being made, so that there is something to ask for

async function refresh() {
  if (!window.dreampose.owner) return;
  const menuOpen = () => element.querySelector("details[open]"); // it stays open, even if opened while the answers come
  let jobs, subjects;
  do {
    while (menuOpen()) await new Promise((next) => setTimeout(next, 300));
    [{ jobs }, { subjects }] = await Promise.all([api("jobs"), api("subjects")]);
  } while (menuOpen());
  const put = (selector, title, rows) => element.querySelector(selector).replaceChildren(...(rows.length ? [made("h2", { textContent: title }), made("ul", {}, ...rows)] : []));
  put(".videos", "My videos", jobs.map(video));
  strip(jobs);
  put(".persons", "Saved people", subjects.map(person));
}

// A video that is being made while the stage shows something else has a strip below the title.
function strip(jobs) {
  const job = jobs.find(({ state }) => ["queued", "running", "interrupted", "cancelling"].includes(state));
  working = Boolean(job);
  const place = document.querySelector("#header .now"), onStage = document.querySelector(".stage")?.dataset.job === job?.id;
  place.replaceChildren();
  if (!job || onStage) return;
  const step = job.progress, how = step?.stage === "frames" ? `frame ${step.step} of ${step.total}` : "being made";
  place.append(`Your video: ${how} `, made("button", { textContent: "Show", onclick: () => window.dreampose.open(job.id) }));
}

const quietly = window.dreampose.refresh = () => refresh().catch(() => {}); // the stage says when the server does not answer
quietly();
setInterval(() => { if (working && !document.hidden && !element.querySelector("details[open]")) quietly(); }, 5000);
setInterval(quietly, 300000); // links hold for ten minutes
document.addEventListener("visibilitychange", () => { if (!document.hidden) quietly(); }); // another tab may have changed it
