import { errorBeside } from "./errors.js";

const QUICK = 60;

const percent = { read: (value) => value / 100, show: (value) => Math.round(100 * value), unit: " %" };

const SLIDERS = {
  threshold: percent,
  opacity: percent,
  iterations: { read: (value) => value, show: (value) => value, unit: "" },
};

/** Sliders and toggles; one that the user is moving ignores edits of others. */
export function startSettings(link) {
  const sliders = document.querySelector(".sliders");
  const say = errorBeside(sliders);
  const toggles = [...document.querySelectorAll(".toggles input[type=checkbox]")];
  const adapt = document.querySelector("#adapt");
  let settled = 0;
  let pending = {};
  let timer;

  async function flush() {
    timer = undefined;
    const settings = pending;
    pending = {};
    try {
      const revision = await link.send({ settings });
      if (timer === undefined) settled = revision;
      say("");
    } catch (error) {
      settled = 0;
      say(error.message);
    }
  }

  function change(name, value) {
    pending[name] = value;
    settled = Infinity;
    timer ??= setTimeout(flush, QUICK);
  }

  function label(slider, value) {
    slider.parentElement.querySelector(`output[for=${slider.id}]`).textContent = value;
  }

  for (const [name, { read, unit }] of Object.entries(SLIDERS)) {
    const slider = document.querySelector(`#${name}`);
    slider.addEventListener("input", () => {
      label(slider, `${slider.value}${unit}`);
      change(name, read(Number(slider.value)));
    });
  }
  for (const toggle of toggles) toggle.addEventListener("change", () => change(toggle.name, toggle.checked));
  adapt.addEventListener("change", () => change("adapt", adapt.value));

  return function onStatus(status) {
    if (status.revision < settled) return;
    const settings = status.settings;
    for (const [name, { show, unit }] of Object.entries(SLIDERS)) {
      const slider = document.querySelector(`#${name}`);
      slider.disabled = settings[name] === null;
      if (slider.disabled) {
        label(slider, "none");
        continue;
      }
      const value = show(settings[name]);
      if (value > Number(slider.max)) slider.max = value;
      if (Number(slider.value) !== value) slider.value = value;
      label(slider, `${value}${unit}`);
    }
    for (const toggle of toggles) toggle.checked = settings[toggle.name];
    toggles.find((toggle) => toggle.name === "flow").disabled = settings.iterations === null;
    adapt.value = settings.adapt;
    adapt.disabled = !status.teaches;
    document.querySelector("#wheel").hidden = !settings.flow;
    document.querySelector("#opacity").disabled = !settings.mask;
    document.querySelector("#pause").setAttribute("aria-pressed", settings.paused);
    document.querySelector("#pause .name").textContent = settings.paused ? "Play" : "Pause";
  };
}
