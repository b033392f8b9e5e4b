for (const head of document.querySelectorAll("table.sortable thead th")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    const body = head.closest("table").tBodies[0], i = head.cellIndex;
    const down = head.getAttribute("aria-sort") !== "descending";
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => row.cells[i].dataset.v ?? row.cells[i].textContent;
    const order = (a, b) => (isNaN(value(a)) || isNaN(value(b)) ? value(a).localeCompare(value(b)) : value(a) - value(b));
    body.append(...[...body.rows].sort((a, b) => (down ? order(b, a) : order(a, b))));
  });
}
const folds = document.getElementById("folds");
folds.hidden = false;
folds.addEventListener("click", () => {
  const open = folds.textContent.startsWith("Open");
  for (const fold of document.querySelectorAll("details")) fold.open = open;
  folds.textContent = open ? "Close all folded parts" : "Open all folded parts";
});
