import { attempt } from "./errors.js";
import { request } from "./link.js";

const clock = (seconds) => `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(2).padStart(5, "0")}`;

/** Place in a file: moved with a slider, or frame by frame. */
export function startTimeline(say) {
  const row = document.querySelector("#timeline");
  const slider = document.querySelector("#seek");
  const place = document.querySelector("#place");
  let wanted = null;
  let sending = false;

  const move = (body) => attempt(() => request("PUT", "api/position", body), say);

  async function flush() {
    if (sending) return;
    sending = true;
    while (wanted !== null) {
      const seconds = wanted;
      wanted = null;
      await move({ seconds });
    }
    sending = false;
  }

  const step = (frames) => !row.hidden && move({ step: frames });

  slider.addEventListener("input", () => {
    wanted = Number(slider.value);
    flush();
  });
  document.querySelector("#back").addEventListener("click", () => step(-1));
  document.querySelector("#forward").addEventListener("click", () => step(1));

  function onStatus({ position, seconds }) {
    row.hidden = seconds === null;
    if (row.hidden) return;
    slider.max = seconds;
    if (!slider.matches(":active")) slider.value = position;
    slider.setAttribute("aria-valuetext", clock(position));
    place.textContent = `${clock(position)} / ${clock(seconds)}`;
  }

  return { step, onStatus };
}
