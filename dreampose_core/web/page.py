"""The page: what stands where, and which handler answers which event."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import gradio as gr
from gradio_client.utils import is_file_obj, traverse

from ..errors import InputError
from ..jobs.service import JobService
from ..settings import MAX_SEED, MINI, REPOSITORY, Settings
from .about import about_server
from .actions import Acts
from .endpoints import add_endpoints
from .events import QUICK, QUIET, REFRESH_S, UNOPENED, kept
from .examples import example_motions, example_people, title
from .handlers import PageHandlers, uploaded
from .links import ResultLinks
from .live import SharedStream
from .mannequins import mannequin_tab
from .programs import Desk

TEXTS = REPOSITORY / "assets" / "page"
RECIPES = [("Learn this person first", "fast"), ("As in the paper, slowly", "paper"), ("Skip", "none")]
RECIPE_WORDS = "Learning takes a minute or two, once per photo, and comes a little nearer to what the photo shows."
QUALITIES = [("Draft", "draft"), ("Standard", "standard"), ("Best", "best")]
QUALITY_WORDS = "How often each frame is gone over; more takes longer."
FITS = [("Auto", "auto"), ("Crop", "crop"), ("Pad", "pad")]
ALIGNS = [("Their own body", "body"), ("Their outline", "outline"), ("As it is", "none")]
SOLVERS = [("The model's own", ""), ("DPM++ 2M", "dpm++"), ("UniPC", "unipc"), ("DDIM", "ddim"), ("PNDM", "pndm")]
MAX_WATCHING = 1000  # pages that watch a job at a time
CHANGES = [
    ("Take out flicker", "smooth"),
    ("Close holes", "fill_holes"),
    ("Mirror", "mirror"),
    ("Backwards", "reverse"),
    ("Keep the clip's sound", "keep_sound"),
]
_SHOW_ANSWER = """() => {
  const show = (tries) => {
    const error = document.querySelector("#dp-message .dp-error"), watch = document.getElementById("dp-watch");
    if (error) error.scrollIntoView({behavior: "smooth", block: "nearest"});
    else if (watch.offsetParent) watch.scrollIntoView({behavior: "smooth"});
    else if (tries) setTimeout(show, 100, tries - 1);
  };
  show(50);
}"""
# A page whose server was started again watches nothing any more: where a job is at work it is loaded anew, else the
# form is left alone.
_REATTACH = """() => {
  let server = null;
  const lost = document.createElement("div");
  lost.id = "dp-lost";
  lost.setAttribute("role", "status");
  document.body.append(lost);
  setInterval(async () => {
    try {
      const answer = await (await fetch("alive", {cache: "no-store"})).json();
      lost.textContent = "";
      const state = document.querySelector("#dp-status .dp-card")?.dataset.state;
      const final = ["done", "failed", "cancelled"].includes(state);
      if (server && answer.server !== server && state && !final) location.reload();
      server = answer.server;
    } catch {
      lost.textContent = "The server does not answer. Jobs go on when it is back, and this page finds them by itself.";
    }
  }, 3000);
}"""
# Buttons in what is shown say in data-do what they do; Gradio hears of it through a button that nobody sees.
_BUTTONS = """() => document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-do]");
  if (!button) return;
  const {do: what, id, name: was} = button.dataset;
  let name = was ?? "";
  if (what === "rename" && !(name = prompt("A name for this video", was))) return;
  const gone = {delete: `Delete ${was} with all its files?`, forget: "Delete what was learned of this person?"}[what];
  if (gone && !confirm(gone)) return;
  if (what === "better") button.disabled = true;  // or a second click would make a second one
  if (what === "delete")  // players go on asking for what they play
    for (const shown of document.querySelectorAll(`[src*="${id}"]`)) {
      shown.onerror = null; shown.removeAttribute("src"); shown.load?.();
    }
  window.dreamposeAsked = JSON.stringify({do: what, id, name});
  document.getElementById("dp-act").click();
  const places = {open: "watch", compare: "compared", again: "photo", use: "photo", motion: "motions", better: "watch"};
  document.getElementById(`dp-${places[what]}`)?.scrollIntoView({behavior: "smooth", block: "center"});
})"""
_NAME_THUMBNAILS = """() => document.querySelectorAll(".thumbnail-item").forEach(
  (button) => button.setAttribute("aria-label", button.querySelector(".caption-label")?.textContent ?? ""))"""


def text(name: str) -> str:
    """The page text assets/page/`name`.md."""
    return (TEXTS / f"{name}.md").read_text(encoding="utf-8")


def build_page(
    settings: Settings, service: JobService, links: ResultLinks, browser_secret: str, examples: Path
) -> gr.Blocks:
    """The page as Gradio blocks, not yet served.

    browser_secret: encrypts what the browser keeps; every visitor's page knows it, so it must unlock nothing else.
    examples: folder with people/ and motions/, which everybody may read.
    """
    gr.set_static_paths([examples / "people", examples / "motions"])
    handlers = PageHandlers(service, links, example_people(examples), example_motions(examples))
    with gr.Blocks(title="DreamPose", analytics_enabled=False) as page:
        browser = gr.BrowserState(None, storage_key="dreampose", secret=browser_secret)
        # Fields of the page, not of the server's session with it: see `sessions`.
        shown_job = kept("dp-job")
        gr.Markdown(text("intro"), elem_id="dp-intro")
        if Path(settings.model).absolute() == MINI:
            gr.Markdown(text("mini"), elem_id="dp-mini")
        # "wrap": whether a tab has room is measured before the page has its fonts, and the menu hides what had none
        with gr.Tabs(overflow_behavior="wrap", elem_id="dp-tabs") as tabs, gr.Tab("Animate a photo", id="animate"):
            with gr.Row(equal_height=False):
                with gr.Column(min_width=320):
                    person, seen, look_at = _person(handlers, browser)
                with gr.Column(min_width=320):
                    motion, told = _motion(handlers)
            look = gr.Button("Preview", interactive=False, elem_id="dp-preview")
            preview = gr.HTML("", elem_id="dp-preview-result")
            options, pace = _options(handlers)
            run = gr.Button(
                "Run", variant="primary", size="lg", interactive=False, elem_id="dp-run"
            )  # until the browser is known
            message = gr.HTML("", elem_id="dp-message")
            stop, download, refresh, compared = _watch(handlers)
            asked, press = kept("dp-do"), gr.Button("", elem_id="dp-act")
        gr.Markdown(text("about"), elem_id="dp-about")
        with gr.Accordion("About this server", open=False, elem_id="dp-server"):
            about = gr.Markdown("", elem_id="dp-server-text")

        opened = page.load(handlers.open_page, browser, [browser, shown_job, run], **QUICK)
        opened.then(lambda: gr.update(interactive=True), None, look, **QUICK)
        opened.then(look_at, {browser, *person.values()}, seen, **QUICK, **UNOPENED)  # of a photo that came too early
        page.load(lambda: about_server(settings, service, text("about_server")), None, about, **QUICK)
        for script in (_REATTACH, _BUTTONS):
            page.load(None, None, None, js=script, **QUICK)
        page.load(None, None, None, js=_NAME_THUMBNAILS, **QUICK)  # Gradio calls them "Thumbnail 1 of 8"
        form = {"browser": browser, **person, **motion, **options}

        def submit(fields: dict):  # a set of inputs comes as one dict: no order to keep
            return handlers.submit(**{name: fields[component] for name, component in form.items()})

        async def preview_of(fields: dict):
            async for picture in handlers.preview(**{name: fields[component] for name, component in form.items()}):
                yield picture

        look.click(
            preview_of,
            set(form.values()),
            preview,
            trigger_mode="multiple",
            concurrency_limit=None,
            api_visibility="private",
            show_progress="minimal",
            show_progress_on=look,
            **UNOPENED,
        )
        run.click(
            submit,
            set(form.values()),
            [browser, shown_job, message],
            api_visibility="private",
            show_progress="minimal",
            show_progress_on=run,
            queue=False,
            **UNOPENED,
        ).then(None, None, None, js=_SHOW_ANSWER, **QUICK)
        # Before the watch, for what listens to the same change waits for its end; and no part of it, whose last word
        # comes late.
        shown_job.change(None, None, compared, js="() => ''", **QUICK)
        shown_job.change(
            handlers.watch,
            [browser, shown_job],
            handlers.outputs,
            concurrency_limit=None,
            trigger_mode="multiple",
            postprocess=False,
            **QUIET,  # which would change nothing, in a thread for each part of each message
        )
        acted = handlers.taken_up(
            compared=compared,
            browser=browser,
            job=shown_job,
            message=message,
            motion_words=told[0],
            **person,
            **motion,
            **options,
        )
        press.click(
            Acts(handlers).act,
            [browser, asked],
            acted,
            js="(browser) => [browser, window.dreamposeAsked ?? '']",
            **QUICK,
        )
        stop.click(handlers.cancel, [browser, shown_job], message, **QUICK)
        for changed in (
            options["recipe"].change,
            options["quality"].change,
            page.load,
            download.change,
        ):  # a job that ended is one more
            changed(handlers.pace, [options["recipe"], options["quality"]], pace, **QUICK)
        for fresh, place in ((handlers.fresh_link, download), (handlers.fresh_shelf, handlers.parts["shelf"])):
            refresh.tick(fresh, [browser, shown_job], place, **QUICK)
        with tabs:
            mannequin_tab(handlers, browser, tabs, [motion["motion"], motion["motion_file"], *told], text)
        add_endpoints(page, Desk.with_examples(service, links, examples))
    _keep_to_uploads(page)
    # api_open: what goes through the queue is not answered past it; gradio_client does not try to.
    page.queue(max_size=256, default_concurrency_limit=8, api_open=False)
    # How many queued events may be answered at a time, of all kinds together. Gradio's 40 are as many threads; here
    # each page that watches a job is one, which takes no thread, and behind the last of them all other events would
    # wait.
    page._queue.max_thread_count = MAX_WATCHING
    page._queue.ANAYLTICS_CACHE_FREQUENCY = (
        sys.maxsize
    )  # no statistics of the last 10,000 events after each of them: nobody sees them
    return page


def _keep_to_uploads(page: gr.Blocks) -> None:
    """Whatever a visitor sends as a file must have been uploaded, wherever in a request it stands.

    Gradio copies a file that a request names to where it can be fetched from, and downloads what is named by an
    address. On a page that it launches it asks first whether the file was uploaded; on one that is mounted it does not.
    Asked here and not of the components, because Gradio makes these anew for a session.
    """
    inner = page.preprocess_data

    def checked(file: dict) -> dict:
        try:
            uploaded(file["path"])
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return file

    async def preprocess_data(block_fn, inputs, *rest, **more):
        traverse(inputs, checked, is_file_obj)
        return await inner(block_fn, inputs, *rest, **more)

    page.preprocess_data = preprocess_data


def _picker(pictures: list[tuple[Path, str]], label: str, columns: int, elem_id: str) -> gr.Gallery:
    """Pictures of which one is chosen by a click."""
    return gr.Gallery(
        [(str(path), title(name)) for path, name in pictures],
        label=label,
        show_label=False,
        columns=columns,
        height="auto",
        allow_preview=False,
        interactive=False,
        buttons=[],
        object_fit="contain",
        elem_id=elem_id,
        visible=bool(pictures),
    )


def _person(
    handlers: PageHandlers, browser: gr.BrowserState
) -> tuple[dict[str, gr.components.Component], gr.HTML, Callable[[dict], Awaitable[str]]]:
    """Field 1: the photo, its DensePose if it is known, how it is framed, by the names of `PageHandlers._request`;
    where it is shown how it is understood, and what finds that out from these fields and the browser."""
    gr.Markdown(text("person"))
    photo = gr.Image(
        label="Photo",
        type="filepath",
        image_mode=None,
        sources=["upload", "webcam", "clipboard"],
        buttons=[],
        height=340,
        elem_id="dp-photo",
    )
    gallery = _picker([(person.image, person.name) for person in handlers.people], "Example people", 6, "dp-people")
    consent = gr.Checkbox(
        False, label=text("consent").strip(), info="The example people are drawn; they need none.", elem_id="dp-consent"
    )
    look = gr.HTML("", elem_id="dp-look")
    with gr.Accordion("Adjust the frame", open=False, elem_id="dp-frame"):
        fit = gr.Radio(FITS, value="auto", label="Shape", info=text("frame"))
        zoom = gr.Slider(
            0.5,
            3,
            1,
            step=0.05,
            label="Nearer, ×",
            info="0.5 to 3. Recommended: 1, with the whole person in the frame.",
        )
        with gr.Row():
            right = gr.Slider(
                -1,
                1,
                0,
                step=0.02,
                label="To the right",
                info="-1 to 1 widths of the frame. Recommended: 0.",
                min_width=140,
            )
            down = gr.Slider(
                -1, 1, 0, step=0.02, label="Down", info="-1 to 1 heights of the frame. Recommended: 0.", min_width=140
            )
    with gr.Accordion("DensePose of the photo (optional)", open=False):
        gr.Markdown(text("person_poses"))
        # every type of file, because what is refused is refused with a sentence that helps
        poses = gr.File(label="DensePose of the photo", height=200, elem_id="dp-photo-poses")
    with gr.Accordion("More photos of the same person (optional)", open=False):
        gr.Markdown(text("person_more"))
        more = gr.File(label="More photos", file_count="multiple", height=200, elem_id="dp-more-photos")
    # In the browser, not in an answer from here: it could come after the next example was picked, and take that one's
    # DensePose away.
    # Who agreed to one photo did not agree to the next.
    photo.input(None, None, [poses, consent, more], js="() => [null, false, null]", **QUICK)
    photo.input(handlers.own_photo, None, gallery, **QUICK)
    gallery.select(handlers.pick_person, None, [photo, poses, more], **QUICK)
    frame = {"fit": fit, "zoom": zoom, "shift_right": right, "shift_down": down}

    async def look_at(fields: dict):
        return await handlers.look(
            fields[browser],
            fields[photo],
            fields[poses],
            **{name: fields[component] for name, component in frame.items()},
        )

    # Not whenever the DensePose changes: where the photo brings it along, the photo has changed, too, and one look is
    # enough.
    gr.on(
        [*(component.change for component in (photo, *frame.values())), poses.upload, poses.clear],
        look_at,
        {browser, photo, poses, *frame.values()},
        look,
        trigger_mode="always_last",
        **{**QUICK, **UNOPENED, "show_progress": "minimal"},
    )
    return {"photo": photo, "photo_poses": poses, "consent": consent, "more_photos": more, **frame}, look, look_at


def _motion(handlers: PageHandlers) -> tuple[dict[str, gr.components.Component], list[gr.components.Component]]:
    """Field 2: the name of a shipped motion, or a file, and what is changed about it; by the names of
    `PageHandlers._request`. And what says which motion is chosen."""
    gr.Markdown(text("motion"))
    name = kept("dp-motion-name")
    gallery = _picker([(motion.thumbnail, motion.name) for motion in handlers.motions], "Motions", 4, "dp-motions")
    words = gr.HTML(handlers.motion_words(None), elem_id="dp-motion")
    with gr.Accordion("Your own motion", open=not handlers.motions):
        gr.Markdown(text("motion_file"))
        file = gr.File(label="A video or DensePose in any form", height=200, elem_id="dp-motion-file")
    with gr.Accordion("Change the motion", open=False, elem_id="dp-edit"):
        with gr.Row():
            frames = gr.Textbox(
                "",
                label="Frames",
                placeholder="all",
                info="A part of it, 0:60 for the first 60; the preview shows the numbers.",
                min_width=120,
                elem_id="dp-frames",
            )
            fps = gr.Textbox(
                "", label="Rate, fps", placeholder="its own", info="1 to 120, at the same speed.", min_width=120
            )
            loops = gr.Textbox(
                "", label="Loops", placeholder="1", info="1 to 100: how often it is shown.", min_width=120
            )
        speed = gr.Slider(
            0.25,
            4,
            1,
            step=0.05,
            label="Speed, ×",
            elem_id="dp-speed",
            info="0.25 to 4, by leaving out frames or repeating them. Recommended: "
            "0.75 to 2; slower than that is jerky.",
        )
        align = gr.Radio(
            ALIGNS,
            value="body",
            label="Fit it to",
            info="The motion is drawn on the body in the photo, or moved and scaled to it.",
            elem_id="dp-align",
        )
        changes = gr.CheckboxGroup(CHANGES, value=[], show_label=False, container=False, elem_id="dp-changes")
    gallery.select(handlers.pick_motion, None, [name, words, file], **QUICK)
    file.upload(handlers.own_motion, file, [name, words, gallery], **QUICK)
    file.clear(handlers.no_motion, None, [name, words], **QUICK)
    return {
        "motion": name,
        "motion_file": file,
        "frames": frames,
        "speed": speed,
        "fps": fps,
        "loops": loops,
        "align": align,
        "changes": changes,
    }, [words, gallery]


def _options(handlers: PageHandlers) -> tuple[dict[str, gr.components.Component], gr.HTML]:
    """Field 3: by the names of AnimateOptions; and where it is said what they cost. Empty fields take what their
    placeholders say."""
    gr.Markdown(text("make"))
    with gr.Row():
        recipe = gr.Radio(
            RECIPES, value="fast", label="Likeness", info=RECIPE_WORDS, min_width=320, elem_id="dp-recipe"
        )
        quality = gr.Radio(
            QUALITIES, value="standard", label="Quality", info=QUALITY_WORDS, min_width=320, elem_id="dp-quality"
        )
    pace = gr.HTML("", elem_id="dp-pace")
    with gr.Accordion("Advanced", open=False, elem_id="dp-advanced"), gr.Row():
        # Ranges are checked with the rest of the form, so that what is wrong is a sentence that stays.
        # Text fields, because Gradio's number field turns an empty one into 0 as soon as it is seen.
        steps = gr.Textbox(
            "",
            label="Steps",
            placeholder="as the quality says",
            info="1 to 250. More: finer, and slower. Recommended: empty.",
        )
        image_guidance = gr.Textbox(
            "",
            label="Image guidance",
            placeholder="the model's own",
            info="0 to 20. More: nearer to the photo. Recommended: empty.",
        )
        pose_guidance = gr.Textbox(
            "",
            label="Pose guidance",
            placeholder="the model's own",
            info="0 to 20. More: nearer to the motion. Recommended: empty.",
        )
        solver = gr.Dropdown(
            SOLVERS,
            value="",
            label="Solver",
            info="How noise becomes a frame. Recommended: the model's own.",
            elem_id="dp-solver",
        )
        with gr.Column(min_width=160):
            seed = gr.Number(0, label="Seed", info=f"0 to {MAX_SEED}. Same seed, same video. Recommended: any.")
            random_seed = gr.Button("Random seed", size="sm")
    random_seed.click(handlers.random_seed, None, seed, **QUICK)
    return {
        "recipe": recipe,
        "quality": quality,
        "steps": steps,
        "image_guidance": image_guidance,
        "pose_guidance": pose_guidance,
        "solver": solver,
        "seed": seed,
    }, pace


def _watch(handlers: PageHandlers) -> tuple[gr.Button, gr.HTML, gr.Timer, gr.HTML]:
    """Fields 4 and 5: the job that is shown, what can be kept of it, and all that the visitor has here.

    What there is nothing to show in is hidden by style.css, which looks at what the status card says: a component that
    Gradio hides is taken out of the page, and what is sent while it comes back is lost.
    """
    with gr.Column(elem_id="dp-watch"):
        gr.Markdown(text("watch"))
        with gr.Row(equal_height=False):
            with gr.Column(min_width=320):
                card = gr.HTML("", elem_id="dp-status")
                stop = gr.Button("Stop", variant="stop", elem_id="dp-stop")
            with gr.Column(min_width=320, elem_id="dp-loss-box"):
                loss = gr.HTML("", elem_id="dp-losses")
                samples = gr.HTML("", elem_id="dp-samples")
        with gr.Row(equal_height=False, elem_id="dp-videos"):
            with gr.Column(min_width=320, elem_id="dp-live-box"):
                gr.Markdown("### While it is made")
                live = gr.Video(
                    label="While it is made",
                    show_label=False,
                    streaming=True,
                    autoplay=True,
                    interactive=False,
                    buttons=[],
                    height=400,
                    elem_id="dp-live",
                )
                live.stream_output = SharedStream().stream_output
            with gr.Column(min_width=320):
                gr.Markdown("### Finished")
                result = gr.HTML("", elem_id="dp-result")
                download = gr.HTML("", elem_id="dp-download")
        compared = gr.HTML("", elem_id="dp-compared")
        refresh = gr.Timer(REFRESH_S)
    shelf = gr.HTML("", elem_id="dp-shelf")
    handlers.watched(card=card, loss=loss, samples=samples, live=live, result=result, download=download, shelf=shelf)
    return stop, download, refresh, compared
