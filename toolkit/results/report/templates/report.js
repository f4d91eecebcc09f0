"use strict";
// Tables sort by the column whose heading is pressed: numbers downwards first, names upwards; again turns it round.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  for (const button of table.querySelectorAll("thead button")) {
    button.addEventListener("click", () => {
      const heading = button.closest("th");
      const column = heading.cellIndex;
      const value = (row) => row.cells[column].dataset.value;
      const rows = [...body.rows];
      const numbers = rows.every((row) => value(row) !== "" && !Number.isNaN(Number(value(row))));
      const before = heading.getAttribute("aria-sort");
      const down = before === "none" ? numbers : before === "ascending";
      rows.sort((a, b) => (numbers ? value(a) - value(b) : value(a).localeCompare(value(b))) * (down ? -1 : 1));
      for (const other of heading.parentNode.cells) other.setAttribute("aria-sort", "none");
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      body.append(...rows);
    });
  }
}
// A list of labels shows one label's curves at a time. Without this script it is not there, and the first ones show.
for (const section of document.querySelectorAll("section.choice")) {
  const parts = section.querySelectorAll(".choose");
  for (const list of section.querySelectorAll("select")) {
    list.closest("label").hidden = false;
    const show = () => parts.forEach((part, number) => (part.hidden = number !== Number(list.value)));
    list.addEventListener("change", show);
    show();
  }
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => (one.open = true)));
