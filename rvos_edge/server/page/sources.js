import { attempt } from "./errors.js";
import { request } from "./link.js";

const LARGEST = 256 * 1024 * 1024;

/** List of sources, and uploads. */
export function startSources(say) {
  const list = document.querySelector("#sources");
  const chooser = document.querySelector("#clip");
  const progress = document.querySelector("#progress");
  const stage = document.querySelector("#stage");
  let drawn = "";

  async function play(source) {
    if (!(await attempt(() => request("PUT", "api/source", { source }), say))) drawn = "";
  }

  const remove = (source) => attempt(() => request("DELETE", `api/clips/${source}`), say);

  function upload(file) {
    if (file.size > LARGEST) {
      say(`${file.name} has ${Math.round(file.size / 2 ** 20)} MiB, more than ${LARGEST / 2 ** 20}; send a shorter clip.`);
      return;
    }
    // fetch reports no progress of uploads.
    const sending = new XMLHttpRequest();
    sending.open("POST", `api/clips?name=${encodeURIComponent(file.name)}`);
    sending.setRequestHeader("Content-Type", "application/octet-stream");
    sending.responseType = "json";
    sending.upload.onprogress = (event) => (progress.value = event.loaded / event.total);
    sending.onloadend = () => {
      progress.hidden = true;
      chooser.value = "";
      if (sending.status === 200) play(sending.response.source);
      else say(sending.response?.error ?? "the upload broke off; try again.");
    };
    progress.value = 0;
    progress.hidden = false;
    sending.send(file);
  }

  chooser.addEventListener("change", () => chooser.files[0] && upload(chooser.files[0]));
  stage.addEventListener("dragover", (event) => {
    event.preventDefault();
    stage.classList.add("over");
  });
  stage.addEventListener("dragleave", () => stage.classList.remove("over"));
  stage.addEventListener("drop", (event) => {
    event.preventDefault();
    stage.classList.remove("over");
    if (event.dataTransfer.files[0]) upload(event.dataTransfer.files[0]);
  });

  return function onStatus(status) {
    const now = JSON.stringify([status.sources, status.source]);
    if (now === drawn) return;
    drawn = now;
    const focused = list.contains(document.activeElement) ? document.activeElement.value : null;
    list.replaceChildren(
      ...status.sources.map((source) => {
        const row = document.createElement("li");
        const label = document.createElement("label");
        const choice = Object.assign(document.createElement("input"), {
          type: "radio", name: "source", value: source.id, checked: source.id === status.source,
        });
        choice.addEventListener("change", () => play(source.id));
        const name = Object.assign(document.createElement("span"), { textContent: source.name, title: source.name });
        label.append(choice, name);
        row.append(label);
        if (source.uploaded && source.id !== status.source) {
          const button = Object.assign(document.createElement("button"), {
            type: "button", className: "quiet", textContent: "×", ariaLabel: `Remove ${source.name}`,
          });
          button.addEventListener("click", () => remove(source.id));
          row.append(button);
        }
        return row;
      }),
    );
    if (focused) list.querySelector(`input[value="${focused}"]`)?.focus();
  };
}
