"""The tab in which a motion is made by hand: what a mannequin does and how, who it is and from where it is seen."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import gradio as gr

from ..errors import DreamPoseError
from ..jobs.records import JobRequest
from ..settings import MAX_SEED, MotionOptions, validated
from . import render
from .events import QUICK, REFRESH_S, UNOPENED, kept
from .handlers import MADE, NONE_SELECTED, PageHandlers, owner_of

MOTIONS = {  # what people call them: the mannequin's names for them
    "Walk": "walk",
    "Stroll and look round": "stroll",
    "March": "march",
    "Jog": "jog",
    "Walk the catwalk": "catwalk",
    "Turn round slowly": "turn",
    "Turn round in quick steps": "turn_quick",
    "Pirouette": "pirouette",
    "Step to the side": "side_step",
    "Stand at ease": "idle",
    "Wave": "wave",
    "Wave with both arms": "wave_both",
    "Clap": "clap",
    "Point": "point",
    "Shrug": "shrug",
    "Bow": "bow",
    "Curtsy": "curtsy",
    "Salute": "salute",
    "Make a phone call": "phone",
    "Look around": "look_around",
    "Raise the arms": "arms",
    "Stretch": "stretch",
    "Fashion poses": "fashion",
    "Shift the weight": "contrapposto",
    "Look over the shoulder": "over_shoulder",
    "Show a dress": "show_dress",
    "Twist": "twist",
    "Squats": "squat",
    "Lunges": "lunge",
    "Kick": "kick",
    "Jump": "jump",
    "Box": "boxing",
    "Swing a golf club": "swing",
    "Tree pose": "tree",
    "Dance": "dance",
    "Disco": "disco",
    "Robot": "robot",
}
_NAMES = {name: words for words, name in MOTIONS.items()}
HEIGHTS = [("Child", "child"), ("Short", "short"), ("Average", "average"), ("Tall", "tall")]
BUILDS = [("Slim", "slim"), ("Average", "average"), ("Heavy", "heavy")]
CLOTHES = [("Close-fitting", "close"), ("Skirt", "skirt"), ("Long skirt", "long_skirt")]
# The first tab is back on the page a moment after the answer.
_SHOW_CHOICE = """() => {
  const show = (tries) => {
    const chosen = document.querySelector("#dp-motion strong");
    if (chosen?.offsetParent) chosen.scrollIntoView({block: "center"});
    else if (tries && !document.querySelector("#dp-made-message .dp-error")) setTimeout(show, 100, tries - 1);
  };
  show(30);
}"""


def mannequin_tab(
    page: PageHandlers,
    browser: gr.BrowserState,
    tabs: gr.Tabs,
    field: list[gr.components.Component],
    text: Callable[[str], str],
) -> None:
    """The tab and its events, inside `tabs`, whose tab "animate" takes the motion.

    field: what it is put into: the motion's name, the uploaded file, the words that say what is chosen, the gallery.
    text: a page text.
    """
    with gr.Tab("Make a motion", id="mannequins"):
        gr.Markdown(text("mannequins"))
        with gr.Row(equal_height=False):
            with gr.Column(min_width=320):
                form = _form()
            with gr.Column(min_width=320, elem_id="dp-making"):
                make = gr.Button("Make the motion", variant="primary", size="lg", elem_id="dp-make")
                shown = gr.HTML("", elem_id="dp-made-result")
                made = kept("dp-made")
                use = gr.Button("Use this motion", variant="primary", interactive=False, elem_id="dp-use")
                message = gr.HTML("", elem_id="dp-made-message")
                download = gr.HTML("", elem_id="dp-made-download")
                gr.Markdown(text("mannequins_models"), elem_id="dp-made-models")
        refresh = gr.Timer(REFRESH_S, active=False)

    handlers = MannequinHandlers(page)

    async def make_of(fields: dict):  # a set of inputs comes as one dict: no order to keep
        async for answer in handlers.make(
            fields[browser], **{name: fields[component] for name, component in form.items()}
        ):
            yield answer

    make.click(
        make_of,
        {browser, *form.values()},
        [shown, made, use, message, download, refresh],
        trigger_mode="multiple",
        concurrency_limit=None,
        api_visibility="private",
        show_progress="minimal",
        show_progress_on=make,
        **UNOPENED,
    )
    use.click(handlers.use, [browser, made], [*field, tabs, message], **QUICK).then(
        None, None, None, js=_SHOW_CHOICE, **QUICK
    )
    refresh.tick(handlers.fresh_motion_link, [browser, made], download, **QUICK)


def _form() -> dict[str, gr.components.Component]:
    """By the names of MotionOptions."""
    motion = gr.Dropdown(
        list(MOTIONS.items()), value="walk", label="Motion", info="What the mannequin does.", elem_id="dp-make-motion"
    )
    speed = gr.Slider(
        0.25,
        4,
        1,
        step=0.05,
        label="Speed, ×",
        elem_id="dp-make-speed",
        info="Times the natural pace, 0.25 to 4. Recommended: 0.75 to 1.25; 0.5 is slow motion.",
    )
    amplitude = gr.Slider(
        0.25,
        1.5,
        1,
        step=0.05,
        label="Movements, ×",
        elem_id="dp-make-amplitude",
        info="Times their natural size, 0.25 to 1.5. Recommended: 0.8 to 1.2; less is calmer. Hands that touch "
        "the body stay on it.",
    )
    seconds = gr.Slider(
        1,
        20,
        4,
        step=0.5,
        label="Length, s",
        elem_id="dp-make-seconds",
        info="1 to 20 seconds. Recommended: 3 to 6; a longer video takes longer to make.",
    )
    with gr.Row():
        height = gr.Radio(
            HEIGHTS, value="average", label="Height", info="The motion is fitted to your photo's person later."
        )
        build = gr.Radio(
            BUILDS, value="average", label="Build", info="Take what is nearest to the person in your photo."
        )
    clothes = gr.Radio(
        CLOTHES, value="close", label="Clothes", info="Take a skirt where your photo shows one: the outline follows it."
    )
    with gr.Accordion("Camera", open=False, elem_id="dp-make-camera"):
        view = gr.Slider(
            -180,
            180,
            0,
            step=5,
            label="Seen from, °",
            info="-180 to 180 degrees. Recommended: 0, the front; 90 is the mannequin's left side, 180 its back.",
        )
        turning = gr.Slider(
            -90,
            90,
            0,
            step=5,
            label="Goes round, °/s",
            info="-90 to 90 degrees a second. Recommended: 0, it stands still; 45 goes all the way round in 8 seconds.",
        )
        distance = gr.Slider(
            1,
            3,
            1,
            step=0.1,
            label="Distance, ×",
            info="Times the usual one, 1 to 3. Recommended: 1; more leaves room around wide movements.",
        )
    with gr.Accordion("More", open=False, elem_id="dp-make-more"):
        fps = gr.Slider(
            8,
            30,
            20,
            step=1,
            label="Rate, fps",
            info="8 to 30 frames a second. Recommended: 20; more is smoother, and takes longer to make.",
        )
        seed = gr.Number(
            0,
            label="Seed",
            precision=0,
            info=f"0 to {MAX_SEED}. Recommended: any; another gives slightly other "
            "proportions, or begins on the other side.",
        )
    return {
        "motion": motion,
        "speed": speed,
        "amplitude": amplitude,
        "seconds": seconds,
        "height": height,
        "build": build,
        "clothes": clothes,
        "view": view,
        "turning": turning,
        "distance": distance,
        "fps": fps,
        "seed": seed,
    }


class MannequinHandlers:
    """The tab's event handlers; as with the page's own, nothing of a visitor stays here."""

    def __init__(self, page: PageHandlers):
        self.page = page

    async def make(self, browser, **form) -> AsyncIterator[tuple]:
        """The motion as it is made: what is shown, the job's id and what goes with it once it is done; one sentence
        where something is wrong. What was made before is let go at once, so that nothing else than what is seen can be
        used."""

        def request(_) -> JobRequest:
            return JobRequest(kind="motion", motion=validated(MotionOptions, form))

        nothing = "", gr.update(interactive=False), "", "", gr.update(active=False)
        yield render.chosen("Getting ready to draw."), *nothing
        try:
            async for status in self.page.followed("motion", browser, request):
                if status.motion is None:
                    yield render.preview_box(status, None), *(gr.skip() for _ in nothing)
                else:
                    box = render.preview_box(status, self.page.link(status, "video"))
                    yield (
                        box,
                        status.id,
                        gr.update(interactive=True),
                        "",
                        self._download(status),
                        gr.update(active=True),
                    )
        except DreamPoseError as error:
            yield render.error_box(str(error)), *(gr.skip() for _ in nothing)

    def use(self, browser, made):
        """Puts the motion into field 2 and shows the first tab; one sentence where it is gone."""
        try:
            options = self.page.made(owner_of(browser), made).request.motion
        except DreamPoseError as error:
            return *(gr.skip() for _ in range(5)), render.error_box(str(error))
        words = self.page.motion_words(
            f"{_NAMES.get(options.motion, options.motion)}, made by hand, {options.seconds:g} s"
        )
        return f"{MADE}{made}", None, words, gr.update(selected_index=NONE_SELECTED), gr.update(selected="animate"), ""

    def fresh_motion_link(self, browser, made):
        """A new download link before the old one expires."""
        try:
            return self._download(self.page.made(owner_of(browser), made))
        except DreamPoseError:
            return gr.skip()

    def _download(self, status) -> str:
        return render.download_link(self.page.link(status, "motion"), "Download its DensePose (npz)")
