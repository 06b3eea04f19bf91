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
// Models can be left away, in every table that has a column of them and in drawings.
const named = new Map();
for (const table of document.querySelectorAll("table.framed")) {
  const place = table.tHead ? [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent === "model") : -1;
  for (const row of place < 0 ? [] : table.tBodies[0].rows) {
    const name = row.cells[place].textContent;
    named.set(name, [...(named.get(name) ?? []), row]);
  }
}
for (const graph of document.querySelectorAll("[data-graph]")) named.get(graph.dataset.graph)?.push(graph);
if (named.size > 1) {
  const choice = document.createElement("fieldset");
  const legend = document.createElement("legend");
  legend.textContent = "Models shown";
  choice.append(legend);
  for (const [name, parts] of named) {
    const [label, box] = [document.createElement("label"), document.createElement("input")];
    box.type = "checkbox";
    box.checked = true;
    box.addEventListener("change", () => parts.forEach((part) => part.toggleAttribute("hidden", !box.checked)));
    label.append(box, ` ${name}`);
    choice.append(label);
  }
  (document.querySelector("nav") ?? document.querySelector("h1")).after(choice);
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));
