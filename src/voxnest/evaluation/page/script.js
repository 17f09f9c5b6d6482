// Tables are sorted by a click on a heading: down, then up. Without this script they are plain tables.
"use strict";

const collator = new Intl.Collator(undefined, { numeric: true });

/** What a cell is sorted by: a number, a text, or null where there is nothing. */
function cellValue(row, column) {
  const cell = row.cells[column];
  if ("missing" in cell.dataset) return null;
  return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent.trim();
}

function compare(a, b) {
  return typeof a === "number" && typeof b === "number" ? a - b : collator.compare(String(a), String(b));
}

/** Sort the rows of a table; what is missing is last either way, and equals stay in their order. */
function sortTable(table, column, sign) {
  const body = table.tBodies[0];
  const rows = Array.from(body.rows, (row) => ({ row, value: cellValue(row, column) }));
  rows.sort((a, b) => {
    if (a.value === null || b.value === null) return (a.value === null) - (b.value === null);
    return sign * compare(a.value, b.value);
  });
  body.append(...rows.map(({ row }) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  const headings = Array.from(table.tHead.rows[0].cells);
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const ascending = heading.getAttribute("aria-sort") !== "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      sortTable(table, column, ascending ? 1 : -1);
    });
  });
}

// Closed details are printed too.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => (part.open = true)));
