const STORE = "rvos-edge-keys";

/** Keys of one letter, and the sheet that lists them and turns them off. */
export function startKeys(keys) {
  const sheet = document.querySelector("#shortcuts-sheet");
  const on = document.querySelector("#keys-on");
  on.checked = localStorage.getItem(STORE) !== "off";
  on.addEventListener("change", () => localStorage.setItem(STORE, on.checked ? "on" : "off"));
  document.querySelector("#shortcuts").addEventListener("click", () => sheet.showModal());
  const all = { ...keys, "?": () => sheet.showModal() };

  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input:not([type=checkbox], [type=radio], [type=file], [type=range]), textarea, select");
    if (event.key === "Escape" && typing) event.target.blur();
    if (!on.checked || typing || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    // The space bar presses the button or checkbox that has the focus.
    if (event.key === " " && event.target.matches("button, input, a, label, summary")) return;
    if (/^[1-9]$/.test(event.key)) {
      const input = document.querySelectorAll("#queries .query")[Number(event.key) - 1];
      if (!input) return;
      event.preventDefault();
      input.focus();
      input.select();
    } else if (all[event.key]) {
      event.preventDefault();
      all[event.key]();
    }
  });
}
