import { attempt, errorBeside } from "./errors.js";
import { call, request } from "./link.js";

const MOST_UNDONE = 20;
const TAP = 4;
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** Shows an object on a frame that the server keeps: a box, or paint. The stream goes on while the query learns. */
export function startTeaching(sayBelow) {
  const find = (id) => document.querySelector(`#${id}`);
  const [drawing, form, tools, query, name, brush] = ["drawing", "teach", "tools", "teach-query", "teach-name", "brush"].map(find);
  const context = drawing.getContext("2d");
  const say = errorBeside(name, form.lastElementChild);
  // White where the object is, transparent elsewhere.
  const mask = document.createElement("canvas");
  const marks = mask.getContext("2d", { willReadFrequently: true });
  const tint = document.createElement("canvas");
  let frame = null;
  let earlier = [];
  let status = { queries: [], taught: [] };
  let [from, to, pen, cursor] = [null, null, null, null];

  const tool = () => form.elements.tool.value;
  const isTaught = () => query.value.startsWith("@");

  async function open() {
    if (frame || !status.teaches) return;
    try {
      const kept = await request("POST", "api/shown");
      const answer = await call("GET", `api/shown/${kept.frame}`);
      const picture = await createImageBitmap(await answer.blob());
      for (const canvas of [drawing, mask, tint]) [canvas.height, canvas.width] = kept.size;
      frame = { id: kept.frame, picture };
      [earlier, from, to, pen, cursor] = [[], null, null, null, null];
      query.replaceChildren(
        ...status.queries.map(({ text }) => new Option(text.replace(/^@/, ""), text)),
        new Option("Something new", ""),
      );
      chooseName();
      shown(true);
      draw();
      drawing.focus({ preventScroll: true });
      say("");
      sayBelow("");
    } catch (error) {
      sayBelow(error.message);
    }
  }

  function close() {
    frame?.picture.close();
    frame = null;
    shown(false);
    find("show").focus({ preventScroll: true });
  }

  function shown(open) {
    drawing.hidden = form.hidden = !open;
    tools.hidden = open;
  }

  function chooseName() {
    name.value = query.value.replace(/^@/, "").slice(0, name.maxLength);
    name.readOnly = isTaught();
    find("teach-mask").disabled = !query.value;
  }

  function draw() {
    context.drawImage(frame.picture, 0, 0);
    const over = tint.getContext("2d");
    over.globalCompositeOperation = "copy";
    over.drawImage(mask, 0, 0);
    over.globalCompositeOperation = "source-in";
    over.fillStyle = "#2f7bff";
    over.fillRect(0, 0, tint.width, tint.height);
    context.globalAlpha = 0.55;
    context.drawImage(tint, 0, 0);
    context.globalAlpha = 1;
    for (const [colour, width] of [["#000", 4], ["#fff", 2]]) {
      Object.assign(context, { strokeStyle: colour, lineWidth: (width * drawing.width) / drawing.clientWidth });
      if (from && to) context.strokeRect(from[0], from[1], to[0] - from[0], to[1] - from[1]);
      if (!cursor) continue;
      const arm = tool() === "box" ? drawing.width / 60 : radius();
      context.beginPath();
      context.arc(...cursor, arm, 0, 2 * Math.PI);
      context.stroke();
    }
  }

  const radius = () => (Number(brush.value) / 200) * drawing.width;

  function remember() {
    earlier.push(marks.getImageData(0, 0, mask.width, mask.height));
    if (earlier.length > MOST_UNDONE) earlier.shift();
  }

  function undo() {
    if (earlier.length) marks.putImageData(earlier.pop(), 0, 0);
    [from, to, pen] = [null, null, null];
    draw();
  }

  function clear() {
    remember();
    marks.clearRect(0, 0, mask.width, mask.height);
    draw();
  }

  function stroke(start, end) {
    marks.globalCompositeOperation = tool() === "erase" ? "destination-out" : "source-over";
    Object.assign(marks, { strokeStyle: "#fff", lineCap: "round", lineWidth: 2 * radius() });
    marks.beginPath();
    marks.moveTo(...start);
    marks.lineTo(...end);
    marks.stroke();
    marks.globalCompositeOperation = "source-over";
  }

  /** Add what the server finds in a box, at a point or for a query. */
  async function outline(way) {
    const on = frame;
    await attempt(async () => {
      const answer = await call("POST", `api/shown/${on.id}/mask`, way);
      const found = await createImageBitmap(await answer.blob());
      if (frame !== on) return;
      remember();
      const over = tint.getContext("2d", { willReadFrequently: true });
      over.globalCompositeOperation = "copy";
      over.drawImage(found, 0, 0);
      const pixels = over.getImageData(0, 0, tint.width, tint.height);
      for (let at = 0; at < pixels.data.length; at += 4) pixels.data[at + 3] = pixels.data[at];
      over.putImageData(pixels, 0, 0);
      marks.drawImage(tint, 0, 0);
    }, say);
    if (frame === on) draw();
  }

  function finishBox() {
    const [x, y] = [0, 1].map((axis) => Math.floor(Math.min(from[axis], to[axis])));
    const [width, height] = [0, 1].map((axis) => Math.ceil(Math.abs(from[axis] - to[axis])));
    const inside = (value, extent) => Math.min(value, extent);
    const way = width < TAP && height < TAP
      ? { point: [inside(x, mask.width - 1), inside(y, mask.height - 1)] }
      : { box: [x, y, inside(width, mask.width - x), inside(height, mask.height - y)], query: query.value };
    [from, to] = [null, null];
    return outline(way);
  }

  function place(event) {
    const area = drawing.getBoundingClientRect();
    const scale = Math.min(area.width / drawing.width, area.height / drawing.height);
    const x = (event.clientX - area.x - (area.width - scale * drawing.width) / 2) / scale;
    const y = (event.clientY - area.y - (area.height - scale * drawing.height) / 2) / scale;
    return [Math.max(0, Math.min(x, drawing.width)), Math.max(0, Math.min(y, drawing.height))];
  }

  drawing.addEventListener("pointerdown", (event) => {
    if (!frame || event.button) return;
    drawing.setPointerCapture(event.pointerId);
    [from, to, cursor] = [place(event), place(event), null];
    if (tool() !== "box") {
      remember();
      pen = from;
      stroke(pen, pen);
      [from, to] = [null, null];
    }
    draw();
  });
  drawing.addEventListener("pointermove", (event) => {
    if (!frame || !drawing.hasPointerCapture(event.pointerId)) return;
    const here = place(event);
    if (from) to = here;
    else if (pen) {
      stroke(pen, here);
      pen = here;
    }
    draw();
  });
  drawing.addEventListener("pointerup", () => {
    pen = null;
    if (frame && from) finishBox();
  });
  drawing.addEventListener("pointercancel", () => {
    [from, to, pen] = [null, null, null];
    if (frame) draw();
  });

  function press(event) {
    const step = KEYS[event.key];
    if (step) {
      const before = cursor ?? [drawing.width / 2, drawing.height / 2];
      const far = drawing.width / (event.shiftKey ? 20 : 100);
      cursor = step.map((way, axis) => Math.max(0, Math.min(before[axis] + way * far, [drawing.width, drawing.height][axis])));
      if (from) to = cursor;
      if (pen) {
        stroke(pen, cursor);
        pen = cursor;
      }
    } else if (event.key === " " || event.key === "Enter") {
      cursor ??= [drawing.width / 2, drawing.height / 2];
      if (tool() !== "box") {
        if (!pen) {
          remember();
          stroke(cursor, cursor);
        }
        pen = pen ? null : cursor;
      } else if (from) finishBox();
      else [from, to] = [cursor, cursor];
    } else return false;
    draw();
    return true;
  }

  form.parentElement.addEventListener("keydown", (event) => {
    if (!frame) return;
    if (event.key === "Escape") close();
    else if ((event.ctrlKey || event.metaKey) && event.key === "z" && event.target !== name) undo();
    else if (event.target !== drawing || !press(event)) return event.stopPropagation();
    event.preventDefault();
    event.stopPropagation();
  });

  async function learn(event) {
    event.preventDefault();
    const told = document.createElement("canvas");
    [told.width, told.height] = [mask.width, mask.height];
    const over = told.getContext("2d");
    over.fillRect(0, 0, told.width, told.height);
    over.drawImage(mask, 0, 0);
    const body = await new Promise((resolve) => told.toBlob(resolve, "image/png"));
    const asked = new URLSearchParams({ frame: frame.id, name: name.value, like: query.value });
    if (await attempt(() => call("POST", `api/learn?${asked}`, body), say)) close();
  }

  form.addEventListener("submit", learn);
  form.addEventListener("change", () => frame && draw());
  query.addEventListener("change", chooseName);
  find("teach-undo").addEventListener("click", undo);
  find("teach-clear").addEventListener("click", clear);
  find("teach-mask").addEventListener("click", () => outline({ query: query.value }));
  find("teach-cancel").addEventListener("click", close);
  find("show").addEventListener("click", open);

  function onStatus(told) {
    status = told;
    find("show").hidden = !told.teaches;
    find("learning").textContent = told.learning ? `Learning ${told.learning}` : "";
  }

  return { open, onStatus };
}
