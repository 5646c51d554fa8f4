import { attempt, errorBeside } from "./errors.js";
import { request } from "./link.js";

/** List of taught queries: renamed in place, asked, taken back, downloaded and uploaded. */
export function startTaught(link) {
  const list = document.querySelector("#taught");
  const chooser = document.querySelector("#query-file");
  const section = document.querySelector("#taught-section");
  const say = errorBeside(chooser, chooser.parentElement);
  let drawn = "";
  let asked = [];

  async function change(work) {
    if (!(await attempt(work, say))) drawn = "";
  }

  const path = (name) => `api/taught/${encodeURIComponent(name)}`;
  const percent = (share) => Math.round(100 * share);

  function makeButton(text, label, work) {
    const button = Object.assign(document.createElement("button"), { type: "button", className: "quiet", textContent: text, title: label, ariaLabel: label });
    button.addEventListener("click", () => change(work));
    return button;
  }

  function makeRow(taught) {
    const row = document.createElement("li");
    const name = Object.assign(document.createElement("input"), { value: taught.name, maxLength: 60, ariaLabel: `Name of ${taught.name}` });
    name.addEventListener("change", () => change(() => request("PUT", path(taught.name), { name: name.value })));
    name.addEventListener("keydown", (event) => event.key === "Enter" && name.blur());
    const shown = `${taught.shots} shown`;
    const gain = taught.j === null ? "" : taught.j > taught.sentence_j
      ? `: match ${percent(taught.j)} %, its sentence ${percent(taught.sentence_j)} %`
      : ": no better than its sentence, which is kept";
    const told = Object.assign(document.createElement("span"), { className: "fine", textContent: shown + gain, title: taught.sentence });
    const download = Object.assign(document.createElement("a"), { href: path(taught.name), download: "", className: "fine", textContent: "Download" });
    row.append(name, makeButton("Undo", `Take back what ${taught.name} learned last`, () => request("POST", `${path(taught.name)}/undo`)), told, download);
    if (!asked.includes(`@${taught.name}`)) {
      row.append(makeButton("Ask", `Ask ${taught.name}`, () => link.send({ queries: [...asked, `@${taught.name}`] })));
    }
    return row;
  }

  chooser.addEventListener("change", async () => {
    const [file] = chooser.files;
    if (!file) return;
    await change(() => request("POST", "api/taught", file));
    chooser.value = "";
  });

  return function onStatus(status) {
    section.hidden = !status.teaches && !status.taught.length;
    asked = status.queries.map((query) => query.text);
    const now = JSON.stringify([status.taught, asked]);
    if (now === drawn || list.contains(document.activeElement) && document.activeElement.matches("input")) return;
    drawn = now;
    list.replaceChildren(...status.taught.map(makeRow));
  };
}
