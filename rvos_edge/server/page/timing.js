const fps = document.querySelector("#fps");
const latency = document.querySelector("#latency");
const dropped = document.querySelector("#dropped");
const stages = document.querySelector("#stages");
const backend = document.querySelector("#backend");

const round = (value) => (value < 10 ? value.toFixed(1) : Math.round(value).toString());

/** Bars for the time of each stage, all to one scale. */
export function showTiming(status) {
  fps.textContent = status.fps.toFixed(1);
  latency.innerHTML = `${round(status.latency_ms.p50)}<small>ms</small>`;
  latency.title = `95 of 100 frames take at most ${round(status.latency_ms.p95)} ms`;
  dropped.textContent = status.live ? status.dropped : "–";
  dropped.title = status.live ? "" : "No frames of a file are dropped";
  backend.textContent = `${status.bundle} on ${status.backend}`;
  const rows = Object.entries(status.stages_ms);
  const longest = Math.max(1e-6, ...rows.map(([, value]) => value));
  while (stages.children.length > rows.length) stages.lastElementChild.remove();
  while (stages.children.length < rows.length) {
    const row = document.createElement("li");
    row.innerHTML = `<span></span><span class="track" aria-hidden="true"><span class="fill"></span></span><span class="value"></span>`;
    stages.append(row);
  }
  rows.forEach(([name, value], index) => {
    const [label, track, number] = stages.children[index].children;
    label.textContent = name.replaceAll("_", " ");
    track.firstElementChild.style.width = `${(100 * value) / longest}%`;
    number.textContent = `${round(value)} ms`;
  });
}
