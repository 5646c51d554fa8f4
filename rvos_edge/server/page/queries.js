import { attempt, errorBeside } from "./errors.js";

const PAUSE = 350;

/** List of queries: edited in place while typing, added, removed, hidden, shown alone, and shown under another name. */
export function startQueries(link) {
  const list = document.querySelector("#queries");
  const form = document.querySelector("#add");
  const examples = document.querySelector("#examples");
  const added = form.querySelector("input");
  const sayAdded = errorBeside(added, form);
  let known = [];
  let hidden = [];
  let labels = {};
  let settled = 0;
  let timer;

  const rows = () => [...list.children];
  const inputs = () => [...list.querySelectorAll(".query")];
  const texts = () => inputs().map((input) => input.value.trim()).filter(Boolean);
  const textOf = (row) => known[rows().indexOf(row)]?.text;
  const othersOf = (text) => known.map((query) => query.text).filter((other) => other !== text);
  const isAlone = (text) => othersOf(text).length > 0 && othersOf(text).every((other) => hidden.includes(other)) && !hidden.includes(text);

  async function send(queries, say) {
    clearTimeout(timer);
    settled = Infinity;
    try {
      settled = await link.send({ queries });
      rows().forEach((row) => row.say(""));
      say("");
      return true;
    } catch (error) {
      settled = 0;
      say(error.message);
      return false;
    }
  }

  const set = (row, settings) => attempt(() => link.send({ settings }), row.say);

  function hide(row) {
    const text = textOf(row);
    set(row, { hidden: hidden.includes(text) ? hidden.filter((other) => other !== text) : [...hidden, text] });
  }

  function rename(row, label) {
    const { [textOf(row)]: _, ...others } = labels;
    set(row, { labels: label ? { ...others, [textOf(row)]: label } : others });
  }

  function makeRow(number) {
    const row = document.createElement("li");
    row.innerHTML = `<button type="button" class="swatch"></button>
      <input class="query" dir="auto" spellcheck="false" enterkeyhint="done"><output class="score"></output>
      <button type="button" class="quiet more" aria-expanded="false">&ctdot;</button>
      <button type="button" class="quiet remove">&times;</button>
      <div class="about" hidden><button type="button" class="only" aria-pressed="false">Only this</button>
      <input class="label" dir="auto" maxlength="60" enterkeyhint="done" placeholder="shown as"></div>
      <small role="status"></small>`;
    const [input, label] = row.querySelectorAll("input");
    const [swatch, more, remove, only] = row.querySelectorAll("button");
    const about = row.querySelector(".about");
    row.say = errorBeside(input, row.lastElementChild);
    input.setAttribute("aria-label", `Query ${number + 1}`);
    label.setAttribute("aria-label", `Name to show for query ${number + 1}`);
    more.setAttribute("aria-label", `More about query ${number + 1}`);
    remove.setAttribute("aria-label", `Remove query ${number + 1}`);
    input.addEventListener("input", () => {
      row.say("");
      clearTimeout(timer);
      if (input.value.trim()) timer = setTimeout(() => send(texts(), row.say), PAUSE);
    });
    input.addEventListener("keydown", (event) => {
      if (event.key === "Enter") input.blur();
      if (event.key !== "Escape") return;
      input.value = textOf(row) ?? "";
      row.say("");
    });
    input.addEventListener("change", () => send(texts(), row.say));
    swatch.addEventListener("click", () => hide(row));
    only.addEventListener("click", () => set(row, { hidden: isAlone(textOf(row)) ? [] : othersOf(textOf(row)) }));
    more.addEventListener("click", () => {
      about.hidden = !about.hidden;
      more.setAttribute("aria-expanded", String(!about.hidden));
    });
    label.addEventListener("keydown", (event) => event.key === "Enter" && label.blur());
    label.addEventListener("change", () => rename(row, label.value.trim()));
    remove.addEventListener("click", () => {
      const gone = inputs().indexOf(input);
      const left = inputs().filter((_, index) => index !== gone).map((other) => other.value.trim()).filter(Boolean);
      row.remove();
      send(left, sayAdded);
      (inputs()[Math.min(gone, left.length - 1)] ?? added).focus({ preventScroll: true });
    });
    return row;
  }

  function showRow(row, query) {
    const [swatch, input, score] = row.children;
    const [only, label] = row.querySelector(".about").children;
    const isHidden = hidden.includes(query.text);
    row.classList.toggle("hidden", isHidden);
    swatch.style.background = swatch.style.borderColor = query.colour;
    swatch.setAttribute("aria-pressed", isHidden);
    swatch.setAttribute("aria-label", `Hide ${query.text}`);
    swatch.title = isHidden ? "Show it" : "Hide it";
    if (document.activeElement !== input) input.value = query.text;
    if (document.activeElement !== label) label.value = query.label;
    only.setAttribute("aria-pressed", isAlone(query.text));
    input.title = query.text;
    const doubt = row.querySelector("small");
    if (doubt.textContent !== query.doubt) doubt.textContent = query.doubt;
    const seen = query.found && query.score !== null;
    score.textContent = seen ? `${Math.round(100 * query.score)} %` : "–";
    score.title = seen ? "Mean probability inside the mask" : "Not seen";
    if (query.adapted) score.title += "; it has settled on what it saw";
  }

  function showExamples(sentences) {
    const offered = sentences.filter((text) => !known.some((query) => query.text === text));
    if (examples.textContent === offered.join("")) return;
    examples.replaceChildren(
      ...offered.map((text) => {
        const chip = Object.assign(document.createElement("button"), { type: "button", textContent: text });
        chip.addEventListener("click", () => send([...texts(), text], sayAdded));
        return chip;
      }),
    );
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = added.value.trim();
    if (text && (await send([...texts(), text], sayAdded))) added.value = "";
  });

  return function onStatus(status) {
    if (status.revision < settled) return;
    known = status.queries;
    ({ hidden, labels } = status.settings);
    while (list.children.length > known.length) list.lastElementChild.remove();
    while (list.children.length < known.length) list.append(makeRow(list.children.length));
    known.forEach((query, index) => showRow(list.children[index], query));
    showExamples(status.examples);
  };
}
