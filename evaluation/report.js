"use strict";
// Filters, searches and walks through the answers. Without it the page shows all of them. It reads text and never writes markup.
{
  const list = document.getElementById("answers"), rows = Array.from(list.querySelectorAll("details"));
  const controls = document.getElementById("controls"), search = document.getElementById("search"), count = document.getElementById("count");
  const chips = Array.from(controls.querySelectorAll("button[data-change]")), selects = Array.from(controls.querySelectorAll("select"));
  const texts = new Array(rows.length);
  let waiting = 0;

  const textOf = (index) => (texts[index] ??= rows[index].textContent.toLowerCase());
  const chosen = () => new Set(chips.filter((chip) => chip.getAttribute("aria-pressed") === "true").map((chip) => chip.dataset.change));
  const fits = (row, select) => !select.value || (row.dataset[select.name] ?? "").split("\n").includes(select.value);

  function apply() {
    waiting = 0;
    const changes = chosen(), words = search.value.toLowerCase().split(/\s+/).filter(Boolean), active = selects.filter((select) => select.value);
    let shown = 0;
    rows.forEach((row, index) => {
      const fit = (!changes.size || changes.has(row.dataset.change)) && active.every((select) => fits(row, select)) && words.every((word) => textOf(index).includes(word));
      if (row.hidden === fit) row.hidden = !fit;
      shown += fit;
    });
    count.textContent = `${shown} of ${rows.length} prompts`;
  }
  const soon = () => { waiting ||= requestAnimationFrame(apply); };

  function step(by) {
    const visible = rows.filter((row) => !row.hidden), at = visible.indexOf(document.activeElement.closest("#answers details"));
    const next = visible[at < 0 ? 0 : Math.max(0, Math.min(visible.length - 1, at + by))];
    next?.querySelector("summary").focus();
    next?.scrollIntoView({ block: "nearest" });
  }

  search.addEventListener("input", soon);
  selects.forEach((select) => select.addEventListener("change", soon));
  chips.forEach((chip) => chip.addEventListener("click", () => {
    chip.setAttribute("aria-pressed", String(chip.getAttribute("aria-pressed") !== "true"));
    soon();
  }));
  document.getElementById("unfold").addEventListener("click", (event) => {
    const open = event.target.getAttribute("aria-pressed") !== "true";
    event.target.setAttribute("aria-pressed", String(open));
    rows.forEach((row) => { if (!row.hidden) row.open = open; });
  });
  document.querySelectorAll("button[data-rule]").forEach((button) => button.addEventListener("click", () => {
    selects.find((select) => select.name === "rules").value = button.dataset.rule;
    apply();
    controls.scrollIntoView();
  }));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape" && event.target === search) { search.value = ""; search.blur(); soon(); return; }
    if (event.target.matches("input, select")) return;
    if (event.key === "/") { event.preventDefault(); search.focus(); }
    if (event.key === "j") step(1);
    if (event.key === "k") step(-1);
  });
  controls.hidden = false;
  apply();
}
