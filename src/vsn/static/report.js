// Sort the bars by class, draw matrices of many classes, show the videos behind a cell; the rest works without this script.
document.documentElement.classList.add("js");
for (const label of document.querySelectorAll("label.sort")) {
  const list = label.closest("section").querySelector("ol.bars");
  const values = (row) => row.dataset.values.split(" ").map(Number);
  const key = {
    spread: (row) => Math.max(...values(row)) - Math.min(...values(row)),
    count: (row) => Number(row.dataset.count),
    name: () => 0,
  };
  label.hidden = false;
  label.querySelector("select").addEventListener("change", (event) => {
    const by = event.target.value;
    // The worst class first; -1, a class without a video, last.
    const own = (row) => values(row)[Number(by)];
    const rank = key[by] ?? ((row) => (own(row) < 0 ? -2 : -own(row)));
    const rows = [...list.children].sort(
      (a, b) => rank(b) - rank(a) || a.dataset.name.localeCompare(b.dataset.name));
    list.replaceChildren(...rows);
  });
}

// The videos behind a cell, a pair or a class: "run:true:predicted", or "run:true" for all predictions.
const behind = JSON.parse(document.getElementById("behind-data")?.textContent ?? "null");
let showVideos = null;
if (behind) {
  const make = (tag, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };
  const heading = make("h2", { id: "behind-title" }), list = make("div");
  const close = make("button", { type: "button", textContent: "Close" });
  const dialog = make("dialog", {}, make("header", {}, heading, close), list);
  dialog.setAttribute("aria-labelledby", "behind-title");
  document.body.append(dialog);
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

  // Strips of frames that are on the page already, or wait in a template.
  const strips = new Map();
  for (const strip of [...document.querySelectorAll(".strip"), ...(document.getElementById("strips")?.content.querySelectorAll(".strip") ?? [])]) {
    const frames = strip.querySelector(".frames");
    if (frames && !strips.has(strip.dataset.video)) strips.set(strip.dataset.video, frames);
  }
  const choice = (run, truth, label, percent, rank) => {
    const right = label === truth, kind = right ? "ok" : rank ? "also" : "no";
    const mark = make("span", { className: "mark", textContent: kind === "ok" ? "✓" : kind === "no" ? "✗" : "" });
    if (kind !== "also") {
      mark.setAttribute("role", "img");
      mark.setAttribute("aria-label", right ? "right" : "wrong");
    }
    return make("li", { className: kind }, mark, make("span", { className: "who", textContent: rank ? "" : run }),
      make("span", { className: "what", textContent: behind.classes[label] }), make("b", { textContent: `${percent.toFixed(1)}%` }));
  };
  const article = ([id, truth, choices], first) => {
    const order = [first, ...choices.keys()].filter((run, place, all) => all.indexOf(run) === place);
    const lines = order.flatMap((run) => {
      const of = choices[run], most = run === first ? of.length : Math.min(of.length, 2);
      return Array.from({ length: most / 2 }, (_, rank) => choice(behind.runs[run], truth, of[2 * rank], of[2 * rank + 1], rank));
    });
    const frames = strips.get(id)?.cloneNode(true);
    return make("article", { className: "strip" },
      make("h3", {}, behind.classes[truth], make("small", { textContent: id })), ...(frames ? [frames] : []), make("ul", {}, ...lines));
  };

  showVideos = (key) => {
    const [run, truth, predicted] = key.split(":"), cells = behind.cells[run];
    const keys = predicted !== undefined ? [`${truth}:${predicted}`]
      : Object.keys(cells).filter((cell) => cell.startsWith(`${truth}:`))
        .sort((a, b) => (a === `${truth}:${truth}`) - (b === `${truth}:${truth}`) || cells[b][0] - cells[a][0]);
    const found = keys.flatMap((cell) => (cells[cell] ?? [0]).slice(1)), total = keys.reduce((sum, cell) => sum + (cells[cell]?.[0] ?? 0), 0);
    const what = predicted === undefined ? `${behind.classes[truth]}, as ${behind.runs[run]} sees it`
      : predicted === truth ? `${behind.classes[truth]}, right in ${behind.runs[run]}`
        : `${behind.classes[truth]} → ${behind.classes[predicted]} in ${behind.runs[run]}`;
    const shown = found.length === 0 ? `${total} videos, which this page does not list`
      : found.length < total ? `${found.length} of ${total} videos, mistakes it is most certain of first` : `${total} ${total === 1 ? "video" : "videos"}`;
    heading.replaceChildren(what, make("small", { textContent: shown }));
    list.replaceChildren(...found.map((index) => article(behind.videos[index], Number(run))));
    dialog.showModal();
    dialog.scrollTop = 0;
  };
  const isOpening = (event) => event.key === "Enter" || event.key === " ";
  for (const target of document.querySelectorAll("[data-open]")) {
    target.setAttribute("role", "button");
    target.tabIndex = 0;
    target.addEventListener("click", () => showVideos(target.dataset.open));
    target.addEventListener("keydown", (event) => {
      if (isOpening(event)) {
        event.preventDefault();
        showVideos(target.dataset.open);
      }
    });
  }
  // The cells of a drawn matrix are one stop of the tabulator key; arrows go from cell to cell.
  for (const svg of document.querySelectorAll(".matrix svg")) {
    const cells = [...svg.querySelectorAll("rect")];
    svg.setAttribute("role", "group");
    svg.closest(".matrix").removeAttribute("tabindex");
    cells.forEach((cell, place) => {
      cell.setAttribute("aria-label", cell.querySelector("title").textContent);
      cell.tabIndex = place ? -1 : 0;
      cell.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        const next = step && cells[place + step];
        if (!step) return;
        event.preventDefault();
        next?.focus();
      });
      cell.addEventListener("focus", () => { for (const other of cells) other.tabIndex = other === cell ? 0 : -1; });
    });
  }
}

// A box scrolls over the whole matrix; the canvas stays in view and draws only the visible part.
const LARGEST_CELL = 26, NAMED_CELL = 11;
const parsed = (id) => JSON.parse(document.getElementById(id).textContent);
for (const map of document.querySelectorAll(".map")) {
  const names = parsed("class-names"), data = parsed(map.dataset.map), n = names.length;
  const [box, size, canvas, readout] = [".map-box", ".map-size", "canvas", ".readout"].map((s) => map.querySelector(s));
  const totals = data.rows.map((row) => row.reduce((sum, value, i) => sum + (i % 2 ? value : 0), 0));
  const count = (truth, predicted) => {
    const row = data.rows[truth];
    for (let i = 0; i < row.length; i += 2) if (row[i] === predicted) return row[i + 1];
    return 0;
  };
  const orders = { file: names.map((_, i) => i), ...data.orders };
  let order = orders.alike, place = [], zoom = 1, marked = null;
  const gutter = () => (cell() >= NAMED_CELL ? Math.min(190, box.clientWidth * 0.4) : 0);
  const whole = () => Math.min(box.clientWidth, box.clientHeight) / n;
  const cell = () => Math.max(whole(), Math.min(whole() * zoom, LARGEST_CELL));

  function draw() {
    const width = box.clientWidth, height = box.clientHeight, side = cell(), left = gutter();
    if (!width) return;  // in a closed box
    size.style.width = `${left + n * side}px`;
    size.style.height = `${n * side}px`;
    const ratio = window.devicePixelRatio || 1, style = getComputedStyle(map);
    if (canvas.width !== width * ratio || canvas.height !== height * ratio) {
      [canvas.width, canvas.height] = [width * ratio, height * ratio];
      [canvas.style.width, canvas.style.height] = [`${width}px`, `${height}px`];
    }
    const pen = canvas.getContext("2d"), color = (name) => style.getPropertyValue(name).trim();
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.fillStyle = color("--card");
    pen.fillRect(0, 0, width, height);
    const [x0, y0] = [box.scrollLeft - left, box.scrollTop];
    const [ok, no] = [color("--map-ok"), color("--map-no")];
    pen.fillStyle = color("--faint");  // every fifth row, for the eye
    if (side >= 6) for (let p = 0; p < n; p += 10) pen.fillRect(0, p * side - y0, width, 5 * side);
    const first = Math.floor(y0 / side), last = Math.min(n, Math.ceil((y0 + height) / side));
    for (let p = first; p < last; p++) {
      const truth = order[p], row = data.rows[truth];
      for (let i = 0; i < row.length; i += 2) {
        const x = place[row[i]] * side - x0;
        if (x + side < left || x > width) continue;
        const share = row[i + 1] / totals[truth];
        pen.fillStyle = `rgba(${row[i] === truth ? ok : no}, ${0.25 + 0.75 * share})`;
        const drawn = side > 6 ? side - 1 : Math.max(side, 2);
        pen.fillRect(x, p * side - y0, drawn, drawn);
      }
    }
    if (left) {
      pen.fillStyle = color("--card");
      pen.fillRect(0, 0, left, height);
      pen.fillStyle = color("--ink");
      pen.font = `${Math.min(13, side * 0.85)}px system-ui, sans-serif`;
      pen.textBaseline = "middle";
      for (let p = first; p < last; p++) pen.fillText(clipped(pen, names[order[p]], left - 8), 2, (p + 0.5) * side - y0);
    }
    if (marked) {
      const [x, y] = [place[marked[1]] * side - x0, place[marked[0]] * side - y0];
      pen.strokeStyle = color("--ink");
      pen.strokeRect(x - 1, y - 1, side + 2, side + 2);
      pen.globalAlpha = 0.25;
      pen.strokeRect(left, y + side / 2, width, 0);
      pen.strokeRect(x + side / 2, 0, 0, height);
      pen.globalAlpha = 1;
    }
  }
  function clipped(pen, text, maxWidth) {
    if (pen.measureText(text).width <= maxWidth) return text;
    let end = text.length;
    while (end > 1 && pen.measureText(`${text.slice(0, end)}…`).width > maxWidth) end--;
    return `${text.slice(0, end)}…`;
  }
  function arrange(key) {
    order = orders[key];
    place = [];
    order.forEach((index, p) => { place[index] = p; });
    draw();
  }
  function mark(truth, predicted) {
    marked = [truth, predicted];
    const found = count(truth, predicted), of = totals[truth];
    // Halves are rounded up, as `vsn.system.numbers` does.
    const share = of ? ` (${(100 * found / of + 1e-9).toFixed(1)}%)` : "";
    readout.textContent = `${names[truth]} → ${names[predicted]}: ${found} of ${of}${share}`;
    map.querySelector(".show-marked").hidden = !showVideos || found === 0;
    draw();
  }
  function zoomTo(value, at) {
    const most = LARGEST_CELL / whole(), before = cell(), old = gutter();
    const middle = at ?? [(box.scrollLeft + box.clientWidth / 2 - old) / before, (box.scrollTop + box.clientHeight / 2) / before];
    zoom = Math.max(1, Math.min(value, most));
    draw();
    box.scrollLeft = middle[0] * cell() - box.clientWidth / 2 + gutter();
    box.scrollTop = middle[1] * cell() - box.clientHeight / 2;
    draw();
  }
  const center = () => marked && [place[marked[1]] + 0.5, place[marked[0]] + 0.5];
  const zoomBy = (key) => zoomTo(key === "0" ? 1 : key === "-" ? zoom / 1.6 : zoom * 1.6, center());
  function under(event) {
    const frame = box.getBoundingClientRect(), side = cell();
    const x = Math.floor((event.clientX - frame.left - box.clientLeft + box.scrollLeft - gutter()) / side);
    const y = Math.floor((event.clientY - frame.top - box.clientTop + box.scrollTop) / side);
    return x >= 0 && x < n && y >= 0 && y < n ? [order[y], order[x]] : null;
  }
  for (const kind of ["pointermove", "pointerdown"]) {
    box.addEventListener(kind, (event) => { const found = under(event); if (found) mark(...found); });
  }
  box.addEventListener("dblclick", (event) => { const found = under(event); if (found) { mark(...found); zoomBy("+"); } });
  box.addEventListener("scroll", draw);
  box.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (step) {
      const held = (p) => Math.max(0, Math.min(n - 1, p));
      const [y, x] = marked ? [held(place[marked[0]] + step[0]), held(place[marked[1]] + step[1])] : [0, 0];
      mark(order[y], order[x]);
      const side = cell(), left = gutter();
      box.scrollTop = Math.min(y * side, Math.max(box.scrollTop, (y + 1) * side - box.clientHeight));
      box.scrollLeft = Math.min(x * side, Math.max(box.scrollLeft, (x + 1) * side - box.clientWidth + left));
      draw();
    } else if (event.key === "Enter") showMarked();
    else if ("+=-0".includes(event.key)) zoomBy(event.key === "=" ? "+" : event.key);
    else return;
    event.preventDefault();
  });
  for (const button of map.querySelectorAll("[data-zoom]")) button.addEventListener("click", () => zoomBy(button.dataset.zoom));
  const showMarked = () => marked && showVideos?.(`${map.dataset.run}:${marked.join(":")}`);
  map.querySelector(".show-marked").addEventListener("click", showMarked);
  map.querySelector("select").addEventListener("change", (event) => arrange(event.target.value));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  new ResizeObserver(draw).observe(box);
  map.querySelector(".tools").hidden = false;
  box.classList.add("drawn");
  arrange("alike");
}
