// What the page of `vsn serve` and that of `vsn export --to web` have in common.

export const $ = (id) => document.getElementById(id);

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// Halves are rounded up, as `vsn.system.numbers` does.
export const percent = (share) => `${(100 * share + 1e-9).toFixed(1)}%`;
export const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds) % 60).padStart(2, "0")}`;
// Golden angle: consecutive hues differ.
export const color = (place) => `hsl(${(215 + 137.5 * place) % 360} 60% 55%)`;

export function show(id, visible = true) { $(id).hidden = !visible; }

export function showProblem(text) {
  $("problem").textContent = text;
  show("problem", text !== "");
}

export function showStatus(text, share = null) {
  $("status").textContent = text;
  if (share === null) $("progress").removeAttribute("value");
  else $("progress").value = share;
}

/** List items of labels with their probabilities as bars. */
export function bars(predictions) {
  return predictions.map(({ label, probability }) => {
    const fill = element("div", { className: "fill" });
    fill.style.width = percent(probability);
    const name = element("div", { className: "name" },
      element("span", { textContent: label }), element("span", { textContent: percent(probability) }));
    const track = element("div", { className: "track" }, fill);
    track.setAttribute("aria-hidden", "true");
    return element("li", {}, name, track);
  });
}

// Seconds of the marks of an axis: at most eight, at times that people count in.
function ticks(seconds) {
  const step = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600].find((one) => seconds / one <= 8) ?? seconds / 8;
  return Array.from({ length: Math.floor(seconds / step) + 1 }, (_, place) => place * step);
}

/**
 * Draw a timeline: `pieces` of `{start, end, label, probability}` in order, whose label may be null; between them it is
 * empty. `choose(start)` is called for the piece that is selected.
 */
export function drawTimeline(seconds, pieces, choose) {
  const share = (at) => 100 * Math.min(1, at / seconds);
  const labels = [...new Set(pieces.map(({ label }) => label).filter((label) => label !== null))];
  $("legend").replaceChildren(...labels.map((label, place) => {
    const item = element("li", { textContent: label });
    item.style.setProperty("--c", color(place));
    return item;
  }));
  $("timeline").replaceChildren(...pieces.map(({ start, end, label, probability }) => {
    const text = `${clock(start)} to ${clock(end)}: ${label === null ? "unknown" : `${label}, ${percent(probability)}`}`;
    const button = element("button", { type: "button", title: text });
    button.setAttribute("aria-label", text);
    button.setAttribute("aria-pressed", "false");
    button.style.setProperty("--c", label === null ? "var(--faint)" : color(labels.indexOf(label)));
    button.style.left = `${share(start)}%`;
    button.style.width = `${share(end - start)}%`;
    button.onclick = () => {
      for (const other of $("timeline").children) other.setAttribute("aria-pressed", String(other === button));
      $("moment").textContent = text;
      choose(start);
    };
    return button;
  }));
  $("axis").replaceChildren(...ticks(seconds).map((at) => {
    const tick = element("span", { textContent: clock(at) });
    // Near the end a time stands before its mark: behind it, it would be cut off.
    if (share(at) > 90) {
      tick.className = "late";
      tick.style.right = `${100 - share(at)}%`;
    } else {
      tick.style.left = `${share(at)}%`;
    }
    return tick;
  }));
}
