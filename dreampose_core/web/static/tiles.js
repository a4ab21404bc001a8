// Pictures of which one is chosen; the value is its name, or null. Those that move do so under the pointer.
const { made } = window.dreampose;
const mark = () => {
  for (const tile of element.querySelectorAll("button"))
    tile.setAttribute("aria-checked", String(tile.dataset.name === props.value));
};
element.addEventListener("click", ({ target }) => {
  const tile = target.closest("button");
  if (!tile) return;
  if (tile.classList.contains("all")) {
    tile.parentElement.classList.add("whole");
    return;
  }
  props.value = tile.dataset.name;
  mark();
  const tell = () => (window.dreampose.owner ? trigger("pick", { name: props.value }) : setTimeout(tell, 100)); // still opening
  tell();
});
// Under the pointer or the focus a tile with a video plays it.
const still = matchMedia("(prefers-reduced-motion: reduce)");
const play = ({ target }) => {
  const tile = target.closest?.("button");
  const moving = tile?.querySelector("img")?.dataset.moving;
  if (!moving || still.matches || tile.querySelector("video")) return;
  tile.append(made("video", { src: moving, muted: true, loop: true, autoplay: true, playsInline: true }));
};
const stop = ({ target, relatedTarget }) => {
  const tile = target.closest?.("button");
  if (!tile?.contains(relatedTarget)) tile?.querySelector("video")?.remove();
};
for (const name of ["pointerover", "focusin"]) element.addEventListener(name, play);
for (const name of ["pointerout", "focusout"]) element.addEventListener(name, stop);
watch("value", mark);
mark();
