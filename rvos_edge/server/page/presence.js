const MOST = 240;
const DASHES = ["", "7 3", "2 2", "9 3 2 3"];
const SVG = "http://www.w3.org/2000/svg";

/** Chart of how probably each query was in the picture over the last minute. */
export function startPresence() {
  const chart = document.querySelector("#presence");
  const lines = new Map();
  const frames = [];

  return function onStatus({ frames: count, queries, state }) {
    if (state !== "playing" || count === frames.at(-1)) return;
    frames.push(count);
    if (frames.length > MOST) frames.shift();
    for (const [text, line] of lines) if (!queries.some((query) => query.text === text)) {
      line.path.remove();
      lines.delete(text);
    }
    queries.forEach((query, index) => {
      if (!lines.has(query.text)) {
        const path = document.createElementNS(SVG, "polyline");
        chart.append(path);
        lines.set(query.text, { path, values: [] });
      }
      const { path, values } = lines.get(query.text);
      values.push(query.presence ?? 0);
      if (values.length > MOST) values.shift();
      path.setAttribute("stroke", query.colour);
      path.setAttribute("stroke-dasharray", DASHES[index % DASHES.length]);
      path.setAttribute("points", values.map((value, at) => `${MOST - values.length + at + 1},${57 - 54 * value}`).join(" "));
    });
    if (frames.length % 8 === 1) {
      const told = queries.map((query) => `${query.label || query.text} ${Math.round(100 * (query.presence ?? 0))} %`);
      chart.setAttribute("aria-label", `Presence now: ${told.join(", ")}`);
    }
  };
}
