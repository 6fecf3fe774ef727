"use strict";
// Without this script the page is a plain table, newest result first. With it, columns sort and rows can be filtered.
const table = document.querySelector("table");
if (table) {
  const body = table.tBodies[0], rows = [...body.rows], told = document.getElementById("shown");
  const form = document.querySelector("form");
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const key = (row, column) => {
    const cell = row.cells[column], number = cell.dataset.v;
    return number === undefined ? cell.textContent.trim().toLowerCase() : number === "" ? null : Number(number);
  };
  table.querySelectorAll("thead th[data-sort]").forEach((head) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const keyed = rows.map((row) => [key(row, head.cellIndex), row]);
      keyed.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null); // what is missing stands last, either way
        const order = typeof a === "number" ? a - b : a < b ? -1 : a > b ? 1 : 0;
        return up ? order : -order;
      });
      body.append(...keyed.map(([, row]) => row));
    });
  });
  const filter = () => {
    const words = form.elements.words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const load = form.elements.load.value, label = form.elements.label.value;
    let count = 0;
    rows.forEach((row, i) => {
      const shown = words.every((word) => texts[i].includes(word)) && (!load || row.cells[1].textContent.trim() === load)
        && (!label || row.dataset.l === label);
      row.hidden = !shown;
      count += shown;
    });
    told.textContent = `${count} of ${rows.length} results`;
  };
  form.hidden = false;
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  filter();
}
