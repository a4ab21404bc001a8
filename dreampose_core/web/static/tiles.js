// Pictures of which one is chosen; the value is its name, or null. Under the pointer or the focus one with a video plays it.
const { html, render } = htmPreact;
const still = matchMedia("(prefers-reduced-motion: reduce)");
let [playing, count] = [null, 6];

function pick(name) {
  props.value = name;
  draw();
  const tell = () => (window.dreampose.owner ? trigger("pick", { name }) : setTimeout(tell, 100)); // still opening
  tell();
}

function play(name) {
  playing = still.matches ? null : name;
  draw();
}

function draw() {
  const tile = ({ name, title, poster, moving }) =>
    html` <button
      role="radio"
      aria-checked=${String(name === props.value)}
      data-name=${name}
      title=${title}
      onclick=${() => pick(name)}
      onpointerenter=${() => play(name)}
      onpointerleave=${() => play(null)}
      onfocus=${() => play(name)}
      onblur=${() => play(null)}
    >
      <img src=${poster} alt="" loading="lazy" />
      ${moving && name === playing && html`<video src=${moving} muted loop autoplay playsinline />`}
      <span>${title}</span>
    </button>`;
  const all = () => {
    count = props.tiles.length;
    draw();
  };
  const more = count < props.tiles.length && html`<button class="all" onclick=${all}>All</button>`;
  render(html`<div class="tiles" role="radiogroup">${props.tiles.slice(0, count).map(tile)}${more}</div>`, element);
}

watch("value", draw);
draw();
