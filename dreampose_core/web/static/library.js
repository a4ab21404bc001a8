// My videos and saved people, from the HTTP API, and the strip below the title. The stage says when something has changed.
const { html, render } = htmPreact;
const { api, relative } = window.dreampose;
const STATES = {
  failed: "Did not work",
  cancelled: "Stopped",
  queued: "Waiting",
  interrupted: "Paused",
  running: "Being made",
  cancelling: "Stopping",
};
let working = false; // whether a video is being made, so that there is something to ask for

function ago(when) {
  const minutes = Math.floor((Date.now() - new Date(when)) / 60000);
  const words = new Intl.RelativeTimeFormat("en");
  if (minutes < 1) return "just now";
  if (minutes < 60) return words.format(-minutes, "minute");
  if (minutes < 1440) return words.format(-Math.floor(minutes / 60), "hour");
  return words.format(-Math.floor(minutes / 1440), "day");
}

const change = (work) => work.catch((problem) => alert(problem.message)).then(refresh);

// A picture that can be opened, and a menu of [words, action].
function row(id, open, picture, words, items) {
  const act = (action) => (event) => {
    event.target.closest("details").open = false;
    action();
  };
  const image = picture ? html`<img src=${relative(picture)} alt="" loading="lazy" />` : html`<span class="blank" />`;
  return html` <li key=${id}>
    <button class="open" onclick=${open}>${image}${words}</button>
    <details class="menu">
      <summary aria-label="Actions">⋯</summary>
      <div class="pop">${items.map(([what, action]) => html`<button onclick=${act(action)}>${what}</button>`)}</div>
    </details>
  </li>`;
}

function video(job) {
  const { id, title } = job;
  const name = job.name ?? (title.charAt(0).toUpperCase() + title.slice(1)).replaceAll("-", ", ").replaceAll("_", " ");
  const words = html`<strong>${name}</strong><small>${STATES[job.state]} ${ago(job.created)}</small>`;
  const rename = () => {
    const given = prompt("Name of this video", name);
    if (given) change(api(`jobs/${id}`, "PATCH", { name: given }));
  };
  const remove = () => {
    if (confirm(`Delete ${name} and all its files?`))
      change(api(`jobs/${id}`, "DELETE").then(() => window.dreampose.forget(id)));
  };
  return row(id, () => window.dreampose.open(id), job.picture, words, [
    ["Use its photo and motion again", () => trigger("again", { id })],
    ["Compare with the one above", () => window.dreampose.compare(job)],
    ["Rename", rename],
    ["Delete", remove],
  ]);
}

function person({ key, picture, used, weights, megabytes }) {
  const use = () => trigger("use", { key });
  const remove = () => {
    if (confirm("Delete this saved person?")) change(api(`subjects/${key}`, "DELETE"));
  };
  return row(key, use, picture, html`<small>used ${ago(used)}</small>`, [
    ["Animate again", use],
    [`Download weights (${megabytes} MB)`, () => location.assign(relative(weights))],
    ["Delete", remove],
  ]);
}

async function refresh() {
  if (!window.dreampose.owner) return;
  const [{ jobs }, { subjects }] = await Promise.all([api("jobs"), api("subjects")]);
  const part = (name, title, rows) =>
    html`<div class=${name}>
      ${
        rows.length > 0 &&
        html`<h2>${title}</h2>
          <ul>
            ${rows}
          </ul>`
      }
    </div>`;
  const parts = [part("videos", "My videos", jobs.map(video)), part("persons", "Saved people", subjects.map(person))];
  render(html`<section class="library">${parts}</section>`, element);
  strip(jobs);
}

// A video that is being made while the stage shows something else has a strip below the title.
function strip(jobs) {
  const job = jobs.find(({ state }) => ["queued", "running", "interrupted", "cancelling"].includes(state));
  working = Boolean(job);
  const elsewhere = job && document.querySelector(".stage")?.dataset.job !== job.id;
  const how = job?.progress?.stage === "frames" ? `frame ${job.progress.step} of ${job.progress.total}` : "being made";
  const show = html`Your video: ${how} <button onclick=${() => window.dreampose.open(job.id)}>Show</button>`;
  render(elsewhere ? show : null, document.querySelector("#header .now"));
}

const quietly = (window.dreampose.refresh = () => refresh().catch(() => {})); // the stage says when the server is away
quietly();
setInterval(() => working && !document.hidden && quietly(), 5000);
setInterval(quietly, 300000); // links hold for ten minutes
document.addEventListener("visibilitychange", () => document.hidden || quietly()); // another tab may have changed it
