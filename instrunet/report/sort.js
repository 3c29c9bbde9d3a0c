for (const table of document.querySelectorAll("table[data-sort]")) {
  const body = table.tBodies[0], heads = [...table.querySelectorAll("th[aria-sort]")];
  const key = (row, i) => row.cells[heads[i].cellIndex].dataset.value ?? row.cells[0].textContent;
  heads.forEach((head, i) => head.firstElementChild.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    heads.forEach(other => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", down > 0 ? "ascending" : "descending");
    // Classes without clips have no figures and stay at the end either way.
    body.append(...[...body.rows].sort((a, b) => {
      const [x, y] = [key(a, i), key(b, i)];
      return (x === "") - (y === "") || down * x.localeCompare(y, undefined, {numeric: i === 0}) * (i === 0) || down * (x - y) || 0;
    }));
  }));
}
