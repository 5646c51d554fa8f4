const THEMES = ["auto", "light", "dark"];

/** Colour theme: automatic, light or dark; remembered in this browser. */
export function startTheme() {
  const button = document.querySelector("#theme");
  let theme = localStorage.getItem("rvos-edge-theme") ?? "auto";

  function apply() {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    localStorage.setItem("rvos-edge-theme", theme);
    button.querySelector("span").textContent = theme[0].toUpperCase() + theme.slice(1);
    button.setAttribute("aria-label", `Colour theme: ${theme}`);
  }

  button.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    apply();
  });
  apply();
}
