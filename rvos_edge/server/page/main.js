import { startAnnouncing } from "./announce.js";
import { startCamera } from "./camera.js";
import { errorBeside } from "./errors.js";
import { startKeys } from "./keys.js";
import { connect } from "./link.js";
import { startPhone } from "./phone.js";
import { startPresence } from "./presence.js";
import { startQueries } from "./queries.js";
import { startSettings } from "./settings.js";
import { startSources } from "./sources.js";
import { startTaught } from "./taught.js";
import { startTeaching } from "./teach.js";
import { startTheme } from "./theme.js";
import { startTimeline } from "./timeline.js";
import { showTiming } from "./timing.js";
import { startTools } from "./tools.js";
import { startViewer } from "./viewer.js";

const message = document.querySelector("#message");
const state = document.querySelector("#state");
const stateText = document.querySelector("#state-text");
const stateSource = document.querySelector("#state-source");
const veil = document.querySelector("#veil");
let said = "";

/** Say below the picture what is wrong with it; an empty sentence removes it. */
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
const timeline = startTimeline(say);
const saySource = errorBeside(document.querySelector("#clip"), document.querySelector("#upload"));
const parts = [
  startQueries(link),
  startTaught(link),
  teaching.onStatus,
  startSettings(link),
  startSources(saySource),
  tools.onStatus,
  timeline.onStatus,
  startPresence(),
  startAnnouncing(),
  showTiming,
];
startCamera(saySource);
startPhone(saySource);
startTheme();
startViewer(document.querySelector("#picture"));

document.querySelector("#pause").addEventListener("click", () => togglePause());

function togglePause() {
  const paused = document.querySelector("#pause").getAttribute("aria-pressed") !== "true";
  link.send({ settings: { paused } }).catch((error) => say(error.message));
}

startKeys({
  " ": togglePause,
  s: tools.snapshot,
  r: tools.record,
  f: tools.fullScreen,
  t: teaching.open,
  ",": () => timeline.step(-1),
  ".": () => timeline.step(1),
  "/": () => document.querySelector("#new-query").focus(),
});
