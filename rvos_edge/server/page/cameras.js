import { request } from "./link.js";
import { startViewer } from "./viewer.js";

const EVERY = 1000;
const main = document.querySelector("#cameras");
const lines = new Map();

/** A tile that leads to the page of a camera. */
function addTile(name) {
  const tile = Object.assign(document.createElement("a"), { href: `${name}/` });
  const title = Object.assign(document.createElement("strong"), { textContent: name });
  const picture = Object.assign(document.createElement("canvas"), { width: 16, height: 9 });
  const line = document.createElement("span");
  tile.append(picture, title, line);
  main.append(tile);
  lines.set(name, line);
  startViewer(picture, `${name}/`);
}

async function look() {
  try {
    const { cameras } = await request("GET", "api/cameras");
    for (const camera of cameras) {
      if (!lines.has(camera.name)) addTile(camera.name);
      const line = lines.get(camera.name);
      line.textContent = camera.trouble || `${camera.fps.toFixed(1)} fps`;
      line.classList.toggle("trouble", Boolean(camera.trouble));
    }
  } catch {
    for (const line of lines.values()) line.textContent = "no connection";
  }
  setTimeout(look, EVERY);
}

look();
