// Dark or light: the system's, until somebody chooses. Loaded before the page is painted, so that nothing flashes.
"use strict";

(() => {
  const root = document.documentElement;
  const systemLight = matchMedia("(prefers-color-scheme: light)");
  const chosen = localStorage.getItem("theme");
  if (chosen) root.dataset.theme = chosen;

  const current = () => root.dataset.theme ?? (systemLight.matches ? "light" : "dark");

  function show(button) {
    const other = current() === "dark" ? "light" : "dark";
    button.textContent = other === "light" ? "☀" : "☾";
    button.setAttribute("aria-label", `Show the page in ${other} colours`);
  }

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    if (!button) return;
    show(button);
    systemLight.addEventListener("change", () => show(button));
    button.addEventListener("click", () => {
      root.dataset.theme = current() === "dark" ? "light" : "dark";
      localStorage.setItem("theme", root.dataset.theme);
      show(button);
      dispatchEvent(new Event("themechange")); // charts draw their own colours
    });
  });
})();
