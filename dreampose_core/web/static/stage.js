// The stage: what the visitor looks at. Its value says whose page this is and what to show:
// {owner, job, opened, preview, example: {video, caption}, problem}. Everything else comes from the HTTP API, which it polls.
const { html, render } = htmPreact;
const { api, relative } = window.dreampose;
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
const KINDS = { animate: "", preview: "Quick preview: the photo's pixels, moved", motion: "The motion" };
const FILES = {
  side_by_side: "Side by side (MP4)",
  gif: "GIF",
  frames: "Frames (ZIP)",
  motion: "Motion (NPZ)",
  settings: "Settings (JSON)",
};
const BUSY_MS = 20000; // without a step: the server has much to do
const FRESH_MS = 300000; // links hold for ten minutes, so they are asked for again before
let [turn, looking, stepped] = [0, null, ["", 0]];
let [wanted, shown, job, example, live, kept, size, compared, divide, problem, heard, away, deleted] = []; // what is drawn

// A video that is still being made: its seconds are appended one after the other as they come.
class Live {
  taken = 0;
  playing = false;
  constructor(Source) {
    const source = new Source();
    this.url = URL.createObjectURL(source);
    this.queue = new Promise((open) => source.addEventListener("sourceopen", open, { once: true })).then(() => {
      this.buffer = source.addSourceBuffer('video/mp4; codecs="avc1.640028"');
      this.buffer.mode = "sequence";
    });
  }
  take(links) {
    for (const link of links.slice(this.taken))
      this.queue = this.queue.then(() => this.append(relative(link))).catch(() => {}); // it may be shown no more
    this.taken = links.length;
  }
  async append(link) {
    this.buffer.appendBuffer(await (await fetch(link)).arrayBuffer());
    await new Promise((done) => this.buffer.addEventListener("updateend", done, { once: true }));
    this.playing = true;
    draw();
    const player = element.querySelector(".player");
    player.play().catch(() => {});
  }
}

function left(seconds) {
  if (seconds < 5) return "a few seconds left";
  if (seconds < 90) return `about ${5 * Math.round(seconds / 5)} s left`;
  if (seconds < 5400) return `about ${Math.round(seconds / 60)} min left`;
  return `about ${(seconds / 3600).toFixed(1)} h left`;
}

// Headline and detail.
function words() {
  const { state, progress: step, place, num_frames: frames } = job ?? { state: wanted ? "queued" : "done" };
  if (away) return ["The server does not answer", "Your video goes on when it is back."];
  if (state === "done") return ["", ""];
  if (state === "failed") return ["This did not work", ""];
  if (state === "cancelling") return ["Stopping", ""];
  if (state === "interrupted") return ["Paused", "It continues by itself; finished frames are kept."];
  if (state === "cancelled") return ["Stopped", frames ? `${frames} frames are kept.` : ""];
  if (state === "queued" && place > 1 && step?.stage !== "estimating")
    return ["Waiting in the queue", `${place - 1} before yours. You can close this page and come back.`];
  if (!STAGES[step?.stage]) return ["Getting ready", "Checking the files and loading the model"];
  const [headline, unit] = STAGES[step.stage];
  if (state === "running" && Date.now() - stepped[1] > BUSY_MS)
    return [headline, "The server is busy; this goes on by itself."];
  const time = step.seconds_left && step.step < step.total ? left(step.seconds_left) : "";
  return [headline, [unit && `${unit} ${step.step} of ${step.total}`, time].filter(Boolean).join(", ")];
}

// What the screen shows: a video or a picture, and a caption.
function content() {
  if (deleted) return { caption: "Deleted" };
  if (!job)
    return example ? { video: example.video, what: example.caption, caption: `Example: ${example.caption}` } : {};
  const caption = KINDS[job.kind];
  if (job.things.video && job.state !== "failed")
    return { video: same("video", job.things.video), what: caption || "Your video", caption };
  if (live?.playing) return { video: live.url, what: "Your video so far" };
  if (kept && !live) return {};
  const found = job.kind === "preview" && job.state === "done";
  const what = "The photo with the person found in it";
  return {
    picture: job.picture && same("picture", job.picture),
    what,
    caption: found && "The person found in your photo",
  };
}

// The same thing by a link signed later is not loaded again.
const links = {};
function same(place, link) {
  if (links[place]?.split("?")[0] !== relative(link).split("?")[0]) links[place] = relative(link);
  return links[place];
}

function draw() {
  const next = content();
  if (next.picture || next.video || !job) shown = next; // else what is there stays until there is something new
  const { picture, video, what, caption } = shown;
  const [headline, detail] = words();
  const state = !wanted ? "empty" : wanted === job?.id ? job.state : "queued";
  const [own, ended, step] = [job?.kind === "animate", !job || FINAL.includes(job.state), job?.progress];
  const sentence = problem || (job?.state === "failed" && job.error) || "";
  const known = Boolean(step?.total) && job.state !== "queued";
  const early = job?.kind === "preview"; // what it says stands in the open
  const items = (sentences) => sentences.map((sentence) => html`<li>${sentence}</li>`);
  const hints = early ? job.notices.filter((notice) => !notice.startsWith("The motion:")) : [];
  document.title = own && !ended ? `${detail || headline} · DreamPose` : "DreamPose";
  const measured = ({ target }) => {
    size = `${target.videoWidth} × ${target.videoHeight}`;
    draw();
  };
  const together = ({ target }) => {
    target.currentTime = element.querySelector(".player").currentTime;
  };
  const move = ({ target }) => {
    divide = target.value;
    draw();
  };
  const stage = html` <section class="stage" data-state=${state} data-job=${wanted} aria-label="Your video">
    <div class="screen">
      ${picture && html`<img class="picture" src=${picture} alt=${what} />`}
      ${
        (video || live) &&
        html`<video
          class="player"
          src=${live?.url ?? video}
          hidden=${live && !live.playing}
          aria-label=${what}
          onloadeddata=${measured}
          muted
          autoplay
          playsinline
          loop
          disableremoteplayback
        />`
      }
      ${
        compared &&
        html`<video
            class="second"
            src=${compared}
            style="clip-path: inset(0 0 0 ${divide}%)"
            onloadeddata=${together}
            aria-label="The video that is compared"
            muted
            autoplay
            playsinline
            loop
          />
          <input
            class="divide"
            type="range"
            value=${divide}
            aria-label="Where one video ends and the other begins"
            oninput=${move}
          />`
      }
      ${caption && html`<p class="caption">${caption}</p>`}
      <div class="veil" role="status" hidden=${!headline}>
        <p class="headline">${headline}</p>
        ${!ended && html`<progress key=${known} ...${known ? { value: step.step / step.total } : {}} />`}
        <p class="detail">${detail}</p>
      </div>
    </div>
    <p class="problem" role="alert">${sentence}</p>
    <ul class="hints" role="status">
      ${items(hints)}
    </ul>
    <div class="actions">${own && actions(job, ended)}</div>
    ${job && facts(job, early ? [] : items(job.notices))}
  </section>`;
  render(stage, element);
  if (sentence && sentence !== heard) element.querySelector(".problem").scrollIntoView({ block: "nearest" });
  heard = sentence;
}

function actions({ id, state, things, options, megabytes }, ended) {
  const save = (name) => `${relative(things[name])}&download=1`;
  const more = Object.keys(FILES).filter((name) => things[name]);
  const sharing = navigator.canShare?.({ files: [new File([""], "a.mp4", { type: "video/mp4" })] });
  const about = size ? `${size}, ${megabytes} MB` : `${megabytes} MB`;
  return html` ${things.video && html`<a class="download primary" href=${save("video")} download=${fileName(things.video)}>Download ${about}</a>`}
  ${things.video && sharing && html`<button class="share" onclick=${() => share(things.video).catch(complain)}>Share</button>`}
  ${
    state === "done" &&
    options?.recipe === "none" &&
    html`<button class="tune" onclick=${() => again({ recipe: "fast" }).catch(complain)}>
      Fine-tune to this person
    </button>`
  }
  ${!ended && html`<button class="stop" onclick=${() => api(`jobs/${id}/cancel`, "POST").catch(complain)}>Stop</button>`}
  ${
    more.length > 0 &&
    html`<details class="more">
      <summary>More files</summary>
      <div class="pop">${more.map((name) => html`<a href=${save(name)} download>${FILES[name]}</a>`)}</div>
    </details>`
  }`;
}

// The training loss, and what was done otherwise than asked for.
function facts({ losses }, notices) {
  if (!losses.length && !notices.length) return null;
  const mean = (some) => (some.reduce((sum, loss) => sum + loss, 0) / some.length).toPrecision(3);
  const course = () => html`<p class="loss">Training loss: ${mean(losses.slice(0, 5))} → ${mean(losses.slice(-5))}</p>`;
  return html`<details class="facts">
    <summary>Details</summary>
    ${losses.length > 0 && course()}
    <ul class="notices">
      ${notices}
    </ul>
  </details>`;
}

const fileName = (link) => link.split("?")[0].split("/").pop();

function complain({ message }) {
  problem = message;
  draw();
}

async function follow(id, mine) {
  let ended = false;
  while (turn === mine) {
    let pause = 1000;
    try {
      const answer = await api(`jobs/${id}`);
      if (turn !== mine) return;
      if (id !== job?.id) live = size = null;
      [job, away] = [answer, false];
      const now = JSON.stringify([id, job.state, job.progress]);
      if (stepped[0] !== now) stepped = [now, Date.now()];
      const Source = window.ManagedMediaSource ?? window.MediaSource;
      if (job.things.video) live = null;
      else if (job.chunks.length && Source) (live ??= new Live(Source)).take(job.chunks);
      draw();
      if (FINAL.includes(job.state)) {
        if (id === looking) looking = null;
        if (job.kind === "motion" && job.state === "done") trigger("drawn", { id });
        if (job.kind === "preview" && job.error) trigger("refused");
        if (job.kind !== "animate") return;
        if (!ended) window.dreampose.refresh();
        ended = true;
      }
      pause = ended ? FRESH_MS : document.hidden ? 5000 : job.state === "queued" && job.place > 1 ? 2500 : 700;
    } catch (error) {
      if (error.status) return ended || complain(error);
      pause = 3000;
      away = !ended;
      draw();
    }
    await new Promise((next) => setTimeout(next, pause));
  }
}

function start() {
  const { owner, job: video, preview, example: ready, problem: why, opened } = props.value ?? {};
  window.dreampose.owner = owner;
  if (why) return complain({ message: why });
  if (looking) api(`jobs/${looking}/cancel`, "POST").catch(() => {}); // another choice came before its preview
  looking = preview;
  // below the progress the preview goes on, or the video that is made once more
  kept = video && !opened && wanted === job?.id && job?.things.video;
  [wanted, problem, deleted, compared] = [preview ?? video, "", false, null];
  turn += 1;
  if (wanted) follow(wanted, turn);
  else [job, example, away] = [null, ready, false];
  draw();
  window.dreampose.refresh();
}

function show(what) {
  props.value = { owner: props.value.owner, ...what };
  start();
}

async function again(change) {
  show({ job: (await api(`jobs/${job.id}/again`, "POST", change)).id });
}

async function share(video) {
  const file = new File([await (await fetch(relative(video))).blob()], fileName(video), { type: "video/mp4" });
  await navigator.share({ files: [file] }).catch(() => {});
}

window.dreampose.open = (id) => show({ job: id, opened: true });

// A video that its owner has deleted has no files any more.
window.dreampose.forget = (id) => {
  if (job?.id !== id) return;
  show({});
  deleted = true;
  draw();
};

// Another video of the visitor's over the one that is shown, on the right of a line that can be moved.
window.dreampose.compare = ({ things }) => {
  [compared, divide] = [things.video && relative(things.video), 50];
  draw();
  element.scrollIntoView({ block: "nearest" });
};

watch("value", start);
start();
