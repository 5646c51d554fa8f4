const PAUSE = 350;

/** List of queries: edited in place while typing, added and removed. */
export function startQueries(link, say) {
  const list = document.querySelector("#queries");
  const form = document.querySelector("#add");
  const added = form.querySelector("input");
  let known = [];
  let settled = 0;
  let timer;

  const inputs = () => [...list.querySelectorAll("input")];
  const texts = () => inputs().map((input) => input.value.trim()).filter(Boolean);

  async function send(queries, edited) {
    clearTimeout(timer);
    settled = Infinity;
    try {
      const revision = await link.send({ queries });
      settled = revision;
      inputs().forEach((input) => input.removeAttribute("aria-invalid"));
      say("");
      return true;
    } catch (error) {
      settled = 0;
      edited?.setAttribute("aria-invalid", "true");
      say(error.message);
      return false;
    }
  }

  function makeRow(number) {
    const row = document.createElement("li");
    row.innerHTML = `<span class="swatch" aria-hidden="true"></span>
      <input dir="auto" spellcheck="false" enterkeyhint="done"><output class="score"></output>
      <button type="button" class="quiet">&times;</button><small role="status"></small>`;
    const [input, remove] = [row.querySelector("input"), row.querySelector("button")];
    input.setAttribute("aria-label", `Query ${number + 1}`);
    remove.setAttribute("aria-label", `Remove query ${number + 1}`);
    input.addEventListener("input", () => {
      clearTimeout(timer);
      if (input.value.trim()) timer = setTimeout(() => send(texts(), input), PAUSE);
    });
    input.addEventListener("keydown", (event) => {
      if (event.key === "Enter") input.blur();
      if (event.key === "Escape") input.value = known[inputs().indexOf(input)]?.text ?? "";
    });
    input.addEventListener("change", () => send(texts(), input));
    remove.addEventListener("click", () => {
      const gone = inputs().indexOf(input);
      const left = inputs().filter((_, index) => index !== gone).map((other) => other.value.trim()).filter(Boolean);
      row.remove();
      send(left);
      (inputs()[Math.min(gone, left.length - 1)] ?? added).focus({ preventScroll: true });
    });
    return row;
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = added.value.trim();
    if (text && (await send([...texts(), text]))) added.value = "";
  });

  return function onStatus(status) {
    if (status.revision < settled) return;
    known = status.queries;
    while (list.children.length > known.length) list.lastElementChild.remove();
    while (list.children.length < known.length) list.append(makeRow(list.children.length));
    known.forEach((query, index) => {
      const row = list.children[index];
      const [swatch, input, score] = row.children;
      swatch.style.background = query.fill;
      swatch.style.borderColor = query.line;
      if (document.activeElement !== input && input.value !== query.text) {
        input.value = query.text;
        input.removeAttribute("aria-invalid");
      }
      input.title = query.text;
      const doubt = row.querySelector("small");
      if (doubt.textContent !== query.doubt) doubt.textContent = query.doubt;
      const seen = query.area > 0 && query.score !== null;
      score.textContent = seen ? `${Math.round(100 * query.score)} %` : "–";
      score.title = seen ? "Mean probability inside the mask" : "Not seen";
    });
  };
}
