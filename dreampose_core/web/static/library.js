// My videos and saved people, from the HTTP API. The stage says when something has changed.
const { api, made, relative } = window.dreampose;
const STATES = {
  failed: "Did not work",
  cancelled: "Stopped",
  queued: "Waiting",
  interrupted: "Paused",
  running: "Being made",
  cancelling: "Stopping",
};
const ago = (when) => {
  const minutes = Math.floor((Date.now() - new Date(when)) / 60000);
  const words = new Intl.RelativeTimeFormat("en");
  if (minutes < 1) return "just now";
  if (minutes < 60) return words.format(-minutes, "minute");
  if (minutes < 1440) return words.format(-Math.floor(minutes / 60), "hour");
  return words.format(-Math.floor(minutes / 1440), "day");
};
const spoken = (title) => (title.charAt(0).toUpperCase() + title.slice(1)).replaceAll("-", ", ").replaceAll("_", " ");

// A picture that can be opened, and a menu of [words, action].
function row(onclick, inside, items) {
  const menu = made("details", { className: "menu" }, made("summary", { ariaLabel: "Actions", textContent: "⋯" }));
  const close = (action) => () => {
    menu.open = false;
    action();
  };
  const buttons = items.map(([words, action]) => made("button", { textContent: words, onclick: close(action) }));
  menu.append(made("div", {}, ...buttons));
  return made("li", {}, made("button", { className: "open", onclick }, ...inside), menu);
}

async function change(work) {
  try {
    await work();
  } catch (problem) {
    alert(problem.message);
  }
  await refresh();
}

const json = (method, body) => ({ method, body: body && JSON.stringify(body) });

function video(job) {
  const name = job.name ?? spoken(job.title);
  const picture = job.picture
    ? made("img", { src: relative(job.picture), alt: "", loading: "lazy" })
    : made("span", { className: "blank" });
  const when = made("small", {}, `${STATES[job.state] ?? ""} ${ago(job.created)}`.trim());
  const rename = () => {
    const given = prompt("Name of this video", name);
    if (given) change(() => api(`jobs/${job.id}`, json("PATCH", { name: given })));
  };
  const remove = () => {
    if (confirm(`Delete ${name} and all its files?`))
      change(() => api(`jobs/${job.id}`, json("DELETE")).then(() => window.dreampose.forget(job.id)));
  };
  return row(
    () => window.dreampose.open(job.id),
    [picture, made("strong", {}, name), when],
    [
      ["Use its photo and motion again", () => trigger("again", { id: job.id })],
      ["Compare with the one above", () => window.dreampose.compare(job)],
      ["Rename", rename],
      ["Delete", remove],
    ],
  );
}

function person(subject) {
  const picture = made("img", { src: relative(subject.picture), alt: "", loading: "lazy" });
  const use = () => trigger("use", { key: subject.key });
  const download = () => location.assign(relative(subject.weights));
  const remove = () => {
    if (confirm("Delete this saved person?")) change(() => api(`subjects/${subject.key}`, json("DELETE")));
  };
  return row(
    use,
    [picture, made("small", {}, `used ${ago(subject.used)}`)],
    [
      ["Animate again", use],
      [`Download weights (${subject.megabytes} MB)`, download],
      ["Delete", remove],
    ],
  );
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
  const put = (selector, title, rows) => {
    const shown = rows.length ? [made("h2", {}, title), made("ul", {}, ...rows)] : [];
    element.querySelector(selector).replaceChildren(...shown);
  };
  put(".videos", "My videos", jobs.map(video));
  strip(jobs);
  put(".persons", "Saved people", subjects.map(person));
}

// A video that is being made while the stage shows something else has a strip below the title.
function strip(jobs) {
  const job = jobs.find(({ state }) => ["queued", "running", "interrupted", "cancelling"].includes(state));
  working = Boolean(job);
  const place = document.querySelector("#header .now");
  const onStage = document.querySelector(".stage")?.dataset.job === job?.id;
  place.replaceChildren();
  if (!job || onStage) return;
  const step = job.progress;
  const how = step?.stage === "frames" ? `frame ${step.step} of ${step.total}` : "being made";
  const button = made("button", { textContent: "Show", onclick: () => window.dreampose.open(job.id) });
  place.append(`Your video: ${how} `, button);
}

const quietly = (window.dreampose.refresh = () => refresh().catch(() => {})); // the stage says when the server does not answer
quietly();
setInterval(() => {
  if (working && !document.hidden && !element.querySelector("details[open]")) quietly();
}, 5000);
setInterval(quietly, 300000); // links hold for ten minutes
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) quietly();
}); // another tab may have changed it
