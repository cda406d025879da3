// Sorting of the bars by class; the page is complete without it.
for (const label of document.querySelectorAll("label.sort")) {
  const list = label.closest("section").querySelector("ol.bars");
  const values = (row) => row.dataset.values.split(" ").map(Number);
  const key = {
    spread: (row) => Math.max(...values(row)) - Math.min(...values(row)),
    run: (row, index) => values(row)[index],
  };
  label.hidden = false;
  label.querySelector("select").addEventListener("change", (event) => {
    const by = event.target.value;
    const rank = (row) => (by === "spread" ? key.spread(row) : key.run(row, Number(by)));
    const rows = [...list.children].sort((a, b) =>
      (by === "name" ? 0 : rank(b) - rank(a)) || a.dataset.name.localeCompare(b.dataset.name));
    list.replaceChildren(...rows);
  });
}
