"use strict";
// Headings become buttons that sort; a missing value stays last. Without this script nothing is lost but that.
for (const table of document.querySelectorAll("table.framed")) {
  const body = table.tBodies[0];
  const headings = table.tHead ? [...table.tHead.rows[0].cells] : [];
  headings.forEach((heading, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => {
        const cell = row.cells[place];
        return cell.dataset.v === undefined ? cell.textContent : Number(cell.dataset.v);
      };
      const compared = (one, other) => {
        const [a, b] = [value(one), value(other)];
        const [noA, noB] = [a === "" || a === "-" || Number.isNaN(a), b === "" || b === "-" || Number.isNaN(b)];
        if (noA || noB) return noA - noB;
        const order = typeof a === "number" && typeof b === "number"
          ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
        return down ? -order : order;
      };
      const rows = [...body.rows].sort(compared);
      rows.forEach((row) => row.classList.add("first"));
      body.append(...rows);
    });
  });
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));
