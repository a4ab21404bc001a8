// The stage: what the visitor looks at. Its value says whose page this is and what to show:
// {owner, job, preview, example: {video, caption}}. Everything else comes from the HTTP API, which it polls.
const { api, made, relative } = window.dreampose;
const $ = (selector) => element.querySelector(selector);
const [stage, picture, player] = [".stage", ".picture", ".player"].map($);
const FINAL = ["done", "failed", "cancelled"];
const STAGES = {
  tuning: ["Fine-tuning to this person", "Step"],
  decoder: ["Fine-tuning details", "Step"],
  frames: ["Making frames", "Frame"],
  video: ["Writing the video"],
  estimating: ["Finding the person", "Picture"],
  preview: ["Making a quick preview", "Frame"],
  drawing: ["Drawing the motion", "Frame"],
};
const FILES = {
  side_by_side: "Side by side (MP4)",
  gif: "GIF",
  frames: "Frames (ZIP)",
  motion: "Motion (NPZ)",
  settings: "Settings (JSON)",
};
const ACTIONS = [".download", ".share", ".tune", ".stop", ".more", ".facts"];
const BUSY_MS = 20000; // without a step: the server has much to do
const FRESH_MS = 300000; // links hold for ten minutes, so they are asked for again before
let [turn, last, live, looking, stepped] = [0, null, null, null, ["", 0]];

const text = (selector, words) => {
  $(selector).textContent = words ?? "";
};
function complain(words) {
  if (words && $(".problem").textContent !== words)
    requestAnimationFrame(() => $(".problem").scrollIntoView({ block: "nearest" }));
  text(".problem", words);
}
const hide = (selector, hidden) => $(selector).toggleAttribute("hidden", hidden); // SVG has no property for it

// The same thing by a link signed later is not loaded again.
function load(node, link) {
  if (node.dataset.of === link.split("?")[0]) return;
  node.dataset.of = link.split("?")[0];
  node.src = link;
}

function showPicture(link, words) {
  load(picture, link);
  picture.alt = words;
  picture.hidden = false;
  if (!live) {
    player.hidden = true;
    player.dataset.of = "";
    player.removeAttribute("src");
    player.load();
  }
}

function showVideo(link, words) {
  live?.end();
  live = null;
  load(player, link);
  player.ariaLabel = words;
  player.hidden = false;
  picture.hidden = true;
}

// A video that is still being made: its seconds are appended one after the other as they come.
class Live {
  taken = 0;
  queue = Promise.resolve();
  source = null;
  buffer = null;
  over = false;
  take(links) {
    for (const link of links.slice(this.taken))
      this.queue = this.queue
        .then(() => this.append(relative(link)))
        .catch(() => {
          this.over = true;
        });
    this.taken = links.length;
  }
  async append(link) {
    if (this.over) return;
    const bytes = await (await fetch(link)).arrayBuffer();
    if (!this.buffer) await this.open(new Uint8Array(bytes));
    if (!this.buffer || this.over) return;
    await new Promise((done, failed) => {
      this.buffer.onupdateend = done;
      this.buffer.onerror = failed;
      this.buffer.appendBuffer(bytes);
    });
    player.hidden = false;
    picture.hidden = true;
    player.play().catch(() => {});
  }
  async open(bytes) {
    const Source = window.ManagedMediaSource ?? window.MediaSource;
    if (!Source) {
      this.over = true;
      return;
    }
    const at = bytes.findIndex(
      (b, i) => b === 97 && bytes[i + 1] === 118 && bytes[i + 2] === 99 && bytes[i + 3] === 67,
    ); // avcC
    const codec = [...bytes.slice(at + 5, at + 8)].map((b) => b.toString(16).padStart(2, "0")).join("");
    this.source = new Source();
    player.disableRemotePlayback = true;
    player.dataset.of = "";
    player.src = URL.createObjectURL(this.source);
    await new Promise((open) => this.source.addEventListener("sourceopen", open, { once: true }));
    this.buffer = this.source.addSourceBuffer(`video/mp4; codecs="avc1.${codec}"`);
    this.buffer.mode = "sequence";
  }
  end() {
    this.over = true;
    if (this.source?.readyState === "open") this.source.endOfStream();
    player.dataset.of = "";
  }
}

function left(seconds) {
  if (seconds < 5) return "a few seconds left";
  if (seconds < 90) return `about ${5 * Math.round(seconds / 5)} s left`;
  if (seconds < 5400) return `about ${Math.round(seconds / 60)} min left`;
  return `about ${(seconds / 3600).toFixed(1)} h left`;
}

function words(job) {
  const step = job.progress;
  if (job.state === "done") return ["", ""];
  if (job.state === "failed") return ["This did not work", ""];
  if (job.state === "cancelling") return ["Stopping", ""];
  if (job.state === "interrupted") return ["Paused", "It continues by itself; finished frames are kept."];
  if (job.state === "cancelled") return ["Stopped", job.num_frames ? `${job.num_frames} frames are kept.` : ""];
  if (job.state === "queued" && job.place > 1 && step?.stage !== "estimating")
    return ["Waiting in the queue", `${job.place - 1} before yours. You can close this page and come back.`];
  if (!STAGES[step?.stage]) return ["Getting ready", "Checking the files and loading the model"];
  const [headline, unit] = STAGES[step.stage];
  const done = unit ? `${unit} ${step.step} of ${step.total}` : "";
  const time = step.seconds_left && step.step < step.total ? left(step.seconds_left) : "";
  return [headline, [done, time].filter(Boolean).join(", ")];
}

function showProgress(job) {
  const [headline, detail] = words(job);
  const [bar, step] = [$(".veil progress"), job.progress];
  const now = JSON.stringify([job.id, job.state, step]);
  if (stepped[0] !== now) stepped = [now, Date.now()];
  const busy = job.state === "running" && Date.now() - stepped[1] > BUSY_MS;
  text(".headline", headline);
  text(".detail", busy ? "The server is busy; this goes on by itself." : detail);
  hide(".veil", !headline);
  bar.hidden = FINAL.includes(job.state);
  if (step?.total && job.state !== "queued") bar.value = step.step / step.total;
  else bar.removeAttribute("value");
  const own = job.kind === "animate";
  document.title = own && !FINAL.includes(job.state) ? `${detail || headline} · DreamPose` : "DreamPose";
}

function showActions(job) {
  const [own, things, tuned] = [job.kind === "animate", job.things, job.options?.recipe !== "none"];
  hide(".stop", !own || FINAL.includes(job.state));
  hide(".download", !own || !things.video);
  if (things.video) {
    const link = $(".download");
    link.href = `${relative(things.video)}&download=1`;
    link.download = things.video.split("?")[0].split("/").pop();
  }
  hide(
    ".share",
    !own || !things.video || !navigator.canShare?.({ files: [new File([""], "a.mp4", { type: "video/mp4" })] }),
  );
  hide(".tune", !own || job.state !== "done" || tuned);
  const more = Object.keys(FILES).filter((name) => things[name]);
  hide(".more", !own || !more.length);
  const link = (name) => ({ textContent: FILES[name], href: `${relative(things[name])}&download=1`, download: "" });
  $(".files").replaceChildren(...more.map((name) => made("a", link(name))));
}

const list = (selector, sentences) =>
  $(selector).replaceChildren(...sentences.map((sentence) => made("li", {}, sentence)));

function showFacts(job) {
  const { losses, samples } = job;
  const early = job.kind === "preview";
  list(".hints", early ? job.notices.filter((notice) => !notice.startsWith("The motion:")) : []);
  const notices = early ? [] : job.notices;
  hide(".facts", !losses.length && !samples.length && !notices.length);
  let smooth = losses[0];
  const course = losses.map((loss) => (smooth = 0.85 * smooth + 0.15 * loss));
  const [low, high] = [Math.min(...course), Math.max(...course)];
  $("svg").ariaLabel =
    course.length > 1 ? `Training loss: ${course[0].toPrecision(3)} → ${course.at(-1).toPrecision(3)}` : "";
  hide(".facts svg", course.length < 2);
  if (course.length > 1)
    $("polyline").setAttribute(
      "points",
      course.map((v, i) => `${(300 * i) / (course.length - 1)},${56 - (52 * (v - low)) / (high - low || 1)}`).join(" "),
    );
  const sample = ({ step, picture: link }) =>
    made("li", {}, made("img", { src: relative(link), alt: `After ${step} steps` }), `step ${step}`);
  if ($(".samples").childElementCount !== samples.length) $(".samples").replaceChildren(...samples.map(sample));
  list(".notices", notices);
}

function render(job) {
  last = job;
  stage.dataset.state = job.state;
  stage.dataset.job = job.id;
  const what = { preview: "Quick preview: the photo's pixels, moved", motion: "The motion" }[job.kind] ?? "";
  complain(job.state === "failed" ? job.error : "");
  if (job.things.video && job.state !== "failed") {
    showVideo(relative(job.things.video), what || "Your video");
    text(".caption", what);
  } else if (job.chunks.length) {
    live ??= new Live();
    live.take(job.chunks);
    text(".caption", "");
  } else if (job.latent_preview) {
    showPicture(relative(job.latent_preview), "The first frame while it is made");
    text(".caption", "First preview");
  } else if (job.picture) {
    showPicture(relative(job.picture), "The photo with the person found in it");
    text(".caption", job.kind === "preview" && job.state === "done" ? "The person found in your photo" : "");
  }
  showProgress(job);
  showActions(job);
  showFacts(job);
}

async function follow(id, mine) {
  let ended = false;
  while (turn === mine) {
    let pause = 1000;
    try {
      const job = await api(`jobs/${id}`);
      if (turn !== mine) return;
      render(job);
      if (FINAL.includes(job.state)) {
        if (id === looking) looking = null;
        if (job.kind === "motion" && job.state === "done") trigger("drawn", { id });
        if (job.kind === "preview" && job.error) trigger("refused");
        if (job.kind !== "animate") return;
        if (!ended) window.dreampose.refresh();
        ended = true;
      }
      pause = ended ? FRESH_MS : document.hidden ? 5000 : job.state === "queued" && job.place > 1 ? 2500 : 700;
    } catch (problem) {
      if (problem.status) {
        if (!ended) complain(problem.message);
        return;
      }
      pause = 3000;
      if (!ended) {
        text(".headline", "The server does not answer");
        text(".detail", "Your video goes on when it is back.");
        hide(".veil", false);
      }
    }
    await new Promise((next) => setTimeout(next, pause));
  }
}

function start() {
  window.dreampose.owner = props.value?.owner;
  const mine = ++turn;
  const { job, preview, example, problem } = props.value ?? {};
  if (looking) api(`jobs/${looking}/cancel`, { method: "POST" }).catch(() => {}); // another choice came before its preview
  looking = preview;
  if (preview ?? job) Object.assign(stage.dataset, { job: preview ?? job, state: "queued" }); // before the library looks
  window.dreampose.refresh();
  complain(problem);
  window.dreampose.compare(null);
  live?.end();
  live = null;
  if (preview ?? job) {
    follow(preview ?? job, mine);
    return;
  }
  stage.dataset.state = "empty";
  delete stage.dataset.job;
  list(".hints", []);
  for (const selector of [".veil", ...ACTIONS]) hide(selector, true);
  document.title = "DreamPose";
  if (example) {
    showVideo(example.video, example.caption);
    text(".caption", `Example: ${example.caption}`);
  }
}

function show(what) {
  props.value = { owner: props.value.owner, ...what };
  start();
}

async function again(change) {
  const job = await api(`jobs/${last.id}/again`, { method: "POST", body: JSON.stringify(change) });
  show({ job: job.id });
}

async function share() {
  const link = relative(last.things.video);
  const name = link.split("?")[0].split("/").pop();
  const file = new File([await (await fetch(link)).blob()], name, { type: "video/mp4" });
  await navigator.share({ files: [file] }).catch(() => {});
}

window.dreampose.open = (id) => show({ job: id });

// A video that its owner has deleted has no files any more.
window.dreampose.forget = (id) => {
  if (last?.id !== id) return;
  show({});
  text(".caption", "Deleted");
};

// Another video of the visitor's over the one that is shown, on the right of a line that can be moved.
window.dreampose.compare = (job) => {
  const [second, divide] = [$(".second"), $(".divide")];
  second.hidden = divide.hidden = !job?.things.video;
  if (second.hidden) {
    second.removeAttribute("src");
    second.load();
    return;
  }
  second.src = relative(job.things.video);
  second.ariaLabel = `Compared with ${job.title}`;
  divide.oninput = () => {
    second.style.clipPath = `inset(0 0 0 ${divide.value}%)`;
  };
  divide.oninput();
  second.onloadeddata = () => {
    second.currentTime = player.currentTime;
  };
  stage.scrollIntoView({ block: "nearest" });
};

const said = (work) => work().catch((problem) => complain(problem.message));
element.addEventListener("click", ({ target }) => {
  if (target.closest(".stop")) said(() => api(`jobs/${last.id}/cancel`, { method: "POST" }));
  if (target.closest(".tune")) said(() => again({ recipe: "fast" }));
  if (target.closest(".share")) said(share);
});
player.addEventListener("loadeddata", () => {
  if (last?.things.video && !live)
    text(".download", `Download ${player.videoWidth} × ${player.videoHeight}, ${last.megabytes} MB`);
});
watch("value", start);
start();
