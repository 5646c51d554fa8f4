import { attempt } from "./errors.js";
import { request } from "./link.js";

/** Snapshot, recording and full screen. */
export function startTools(say) {
  const button = document.querySelector("#record");
  const clock = document.querySelector("#clock");
  const dataset = document.querySelector("#dataset");
  const list = document.querySelector("#recordings");
  const figure = document.querySelector("#figure");
  const full = document.querySelector("#full");
  let busy = false;

  function download(path) {
    const link = Object.assign(document.createElement("a"), { href: path, download: "" });
    link.click();
  }

  const snapshot = () => download("api/snapshot");

  async function record() {
    if (busy) return;
    busy = true;
    const running = button.getAttribute("aria-pressed") === "true";
    await attempt(async () => {
      const { recording } = await request(running ? "DELETE" : "POST", `api/recording${!running && dataset.checked ? "?dataset=true" : ""}`);
      if (running) download(`api/recordings/${recording}`);
    }, say);
    busy = false;
  }

  function fullScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else figure.requestFullscreen?.();
  }

  document.querySelector("#snapshot").addEventListener("click", snapshot);
  button.addEventListener("click", record);
  full.addEventListener("click", fullScreen);
  full.hidden = !document.fullscreenEnabled;

  function onStatus({ recording }) {
    button.setAttribute("aria-pressed", recording.running);
    button.querySelector(".name").textContent = recording.running ? "Stop" : "Record";
    const seconds = Math.floor(recording.seconds);
    const told = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
    clock.textContent = recording.running ? told : "";
    dataset.disabled = recording.running;
    if (list.children.length === recording.files.length && list.lastElementChild?.textContent === recording.files.at(-1)) return;
    list.replaceChildren(
      ...recording.files.map((name) => {
        const row = document.createElement("li");
        row.append(Object.assign(document.createElement("a"), { href: `api/recordings/${name}`, textContent: name, download: "" }));
        return row;
      }),
    );
  }

  return { snapshot, record, fullScreen, onStatus };
}
