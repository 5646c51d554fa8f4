import { connect } from "./link.js";
import { startQueries } from "./queries.js";
import { startSettings } from "./settings.js";
import { startSources } from "./sources.js";
import { startTaught } from "./taught.js";
import { startTeaching } from "./teach.js";
import { startTheme } from "./theme.js";
import { showTiming } from "./timing.js";
import { startTools } from "./tools.js";
import { startViewer } from "./viewer.js";

const message = document.querySelector("#message");
const state = document.querySelector("#state");
const stateText = document.querySelector("#state-text");
const stateSource = document.querySelector("#state-source");
const veil = document.querySelector("#veil");
let said = "";

/** Show an error to the user; an empty sentence removes it. */
function say(sentence) {
  said = sentence;
  show(sentence);
}

function show(sentence) {
  if (message.textContent !== sentence) message.textContent = sentence;
}

const link = connect({
  onStatus(status) {
    parts.forEach((part) => part(status));
    show(said || status.trouble || status.recording.trouble);
    state.dataset.state = status.state;
    const fps = status.state === "playing" ? `${status.fps.toFixed(1)} fps` : status.state;
    stateText.textContent = fps;
    stateSource.textContent = status.sources.find((source) => source.id === status.source)?.name ?? "";
    const waiting = status.state === "starting" ? "Waiting for the first picture" : "";
    veil.textContent = waiting || veil.textContent;
    veil.classList.toggle("gone", !waiting);
    document.documentElement.dataset.shown = status.shown;
  },
  onLost() {
    state.dataset.state = "lost";
    stateText.textContent = "no connection";
    veil.textContent = "The connection is lost; trying again";
    veil.classList.remove("gone");
  },
});

const tools = startTools(say);
const teaching = startTeaching(say);
const parts = [
  startQueries(link, say),
  startTaught(link, say),
  teaching.onStatus,
  startSettings(link, say),
  startSources(say),
  tools.onStatus,
  showTiming,
];
startTheme();
startViewer(document.querySelector("#picture"));

document.querySelector("#pause").addEventListener("click", () => togglePause());

function togglePause() {
  const paused = document.querySelector("#pause").getAttribute("aria-pressed") !== "true";
  link.send({ settings: { paused } }).catch((error) => say(error.message));
}

const keys = {
  " ": togglePause,
  s: tools.snapshot,
  r: tools.record,
  f: tools.fullScreen,
  t: teaching.open,
  "/": () => document.querySelector("#new-query").focus(),
};
document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input:not([type=checkbox]):not([type=radio]):not([type=file]), textarea");
  if (event.key === "Escape" && typing) event.target.blur();
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  // The space bar presses the button or checkbox that has the focus.
  if (event.key === " " && event.target.matches("button, input, a, label")) return;
  if (/^[1-9]$/.test(event.key)) {
    const input = document.querySelectorAll("#queries input")[Number(event.key) - 1];
    if (!input) return;
    event.preventDefault();
    input.focus();
    input.select();
  } else if (keys[event.key]) {
    event.preventDefault();
    keys[event.key]();
  }
});
