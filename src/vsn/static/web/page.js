// The page around worker.js: choose a video or the camera, show labels and timeline.

import { $, bars, color, drawTimeline, element, percent, show, showProblem, showStatus } from "./parts.js";

const MOST_BARS = 80; // of the camera's timeline
const worker = new Worker(`worker.js${location.search}`, { type: "module" });
let model = null;   // model.json
let job = 0;        // the file that is computed; 0: none
let lastJob = 0;
let chosen = null;  // the file
let camera = null;  // {stream, grid, ...} while the camera runs

// --- the model ------------------------------------------------------------------------------------------------------

function showModel({ model: loaded, runtime }) {
  model = loaded;
  const few = model.classes.slice(0, 3).join(", ");
  $("model").textContent = `${model.name}, ${model.classes.length} classes: ${few}${model.classes.length > 3 ? ", …" : ""}`;
  const threads = `${runtime.threads} ${runtime.threads === 1 ? "thread" : "threads"}`;
  const rows = {
    "Frames": model.preprocessing.frames,
    "View": `${model.preprocessing.protocol}: ${model.preprocessing.view}`,
    "Weights": `${model.weights || "as given"}, ${model.precision}, SHA-256 ${model.weights_hash || "unknown"}`,
    "Classes": model.classes.join(", "),
    "Runs on": runtime.device === "webgpu" ? "the graphics card (WebGPU)" : `the processor (wasm, ${threads})`,
    "vsn": model.vsn,
  };
  $("card").replaceChildren(...Object.entries(rows).flatMap(([name, text]) =>
    [element("dt", { textContent: name }), element("dd", { textContent: text })]));
  $("file").disabled = $("live").disabled = false;
  // Browsers offer the camera only to pages from https or from this machine.
  show("live", model.takes_windows && Boolean(navigator.mediaDevices?.getUserMedia));
  showExamples();
  document.body.dataset.runtime = `${runtime.device} ${runtime.threads}`;
}

/** Buttons for the videos that came with the model. */
function showExamples() {
  const list = $("examples");
  for (const { file, label } of model.examples) {
    const button = element("button", { type: "button", textContent: label });
    button.onclick = async () => {
      const response = await fetch(file).catch(() => null);
      if (response?.ok) predict(new File([await response.blob()], `Example: ${label}`));
      else showProblem(`The example ${file} is not in the folder of this page.`);
    };
    list.append(" ", button);
  }
  show("examples", model.examples.length > 0);
}

// --- files -------------------------------------------------------------------------------------------------------------

function predict(file) {
  if (model === null) return;
  stopCamera();
  showProblem("");
  show("result", false);
  chosen = file;
  job = ++lastJob; // an earlier one is given up
  show("working");
  showStatus("Opening …");
  worker.postMessage({ kind: "file", id: job, file });
}

function endJob() {
  job = 0;
  show("working", false);
}

function showProgress({ id, stage, done, total }) {
  if (id !== job) return;
  const what = { decode: `Decoding: ${done} of ${total} frames`, predict: `Predicting: ${done} of ${total}`, timeline: `Timeline: ${done} of ${total}` };
  showStatus(what[stage], done / total);
}

function showAnswer(answer) {
  if (answer.id !== job) return;
  if (!answer.numWindows) endJob(); // else the timeline follows
  const preview = $("preview");
  if (preview.src) URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(chosen);
  showPreview(true);
  $("result-title").textContent = chosen.name || "Result";
  $("labels").replaceChildren(...bars(answer.predictions));
  const { seconds, numFrames, width, height, codec } = answer.video;
  $("facts").textContent = `${seconds.toFixed(1)} s, ${numFrames} ${numFrames === 1 ? "frame" : "frames"} of ${width}×${height}, ` +
    `${codec}; decoded in ${answer.decodeMs.toFixed(0)} ms, predicted in ${answer.predictMs.toFixed(0)} ms. ${answer.note}`;
  show("timeline-part", false);
  $("frames").replaceChildren(...answer.frames.map(drawn));
  show("result");
  $("result").focus();
}

function showPreview(visible) {
  show("seen", visible);
  $("seen").parentElement.classList.toggle("single", !visible);
}

function drawn({ planes, height, width }, place, all) {
  const canvas = element("canvas", { height, width });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Frame ${place + 1} of ${all.length}`);
  const image = new ImageData(width, height), area = height * width;
  for (let i = 0; i < area; i++) image.data.set([planes[i], planes[area + i], planes[2 * area + i], 255], 4 * i);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

function showTimeline(timeline) {
  if (timeline.id !== job) return;
  endJob();
  show("timeline-part");
  $("moment").textContent = "Select an interval to see its label.";
  drawTimeline(timeline.seconds, timeline.segments, (start) => {
    if (!$("seen").hidden) $("preview").currentTime = start;
  });
}

// --- the camera -----------------------------------------------------------------------------------------------------------

async function toggleCamera() {
  if (camera !== null) {
    stopCamera();
    return;
  }
  if (job) {
    worker.postMessage({ kind: "cancel" });
    endJob();
  }
  showProblem("");
  show("result", false);
  const mine = (camera = { stream: null, colors: new Map() });
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: true, audio: false });
  } catch (error) {
    if (camera === mine) camera = null;
    showProblem(`The camera cannot be used (${error.name}). Allow it in the browser, or choose a file.`);
    return;
  }
  if (camera !== mine) { // stopped while the browser asked
    for (const track of stream.getTracks()) track.stop();
    return;
  }
  camera.stream = stream;
  for (const track of stream.getTracks()) {
    track.onended = () => {
      stopCamera();
      showProblem("The camera was disconnected.");
    };
  }
  $("live").textContent = "Stop the camera";
  $("live").setAttribute("aria-pressed", "true");
  $("now").textContent = "Waiting for the camera …";
  $("live-labels").replaceChildren();
  $("live-timeline").replaceChildren();
  $("live-facts").textContent = "";
  show("camera-part");
  $("camera").srcObject = stream;
  await $("camera").play().catch(() => {});
  if (camera === mine) worker.postMessage({ kind: "live" }); // its answer starts the frames
}

/** Send the frames of each instant; frames between instants cost nothing. */
function sendFrames({ stepSeconds, numConsecutive }) {
  const mine = camera, view = $("camera");
  if (mine === null) return;
  let start = null, step = 0, left = 0;
  const next = () => {
    if (camera === mine) view.requestVideoFrameCallback(take);
  };
  const take = (now) => {
    start ??= now;
    // The frame on display in the middle of the step, or the first one after it.
    const reached = Math.floor((now - start) / 1000 / stepSeconds - 0.5);
    if (reached >= step) {
      step = reached + 1;
      left = numConsecutive;
    }
    if (left > 0 && camera === mine) {
      left--;
      const frame = new VideoFrame(view);
      worker.postMessage({ kind: "frame", frame, step: step - 1 }, [frame]);
    }
    next();
  };
  next();
}

function stopCamera() {
  if (camera === null) return;
  for (const track of camera.stream?.getTracks() ?? []) track.stop();
  camera = null;
  worker.postMessage({ kind: "stop" });
  $("camera").srcObject = null;
  $("live").textContent = "Use the camera";
  $("live").setAttribute("aria-pressed", "false");
  show("camera-part", false);
}

function showWindow({ label, probability, predictions, ms, skipped }) {
  if (camera === null) return;
  const text = label ?? "unknown";
  if ($("now").textContent !== text) $("now").textContent = text; // read aloud when it changes
  $("live-labels").replaceChildren(...bars(predictions));
  $("live-facts").textContent = `predicted in ${ms.toFixed(0)} ms` + (skipped ? `; ${skipped} windows skipped, as the model was busy` : "");
  if (label !== null && !camera.colors.has(label)) camera.colors.set(label, color(camera.colors.size));
  const bar = element("i", { title: `${text}, ${percent(probability)}` });
  bar.style.setProperty("--c", label === null ? "var(--faint)" : camera.colors.get(label));
  const band = $("live-timeline");
  band.append(bar);
  while (band.children.length > MOST_BARS) band.firstChild.remove();
}

// --- events -----------------------------------------------------------------------------------------------------------------

const answers = {
  ready: showModel,
  progress: showProgress,
  answer: showAnswer,
  timeline: showTimeline,
  grid: sendFrames,
  filling: ({ share }) => {
    if (camera && !$("live-labels").children.length) $("now").textContent = `Filling the first window: ${percent(share)}`;
  },
  window: showWindow,
  problem: ({ id, message, isFatal }) => {
    if (id !== 0 && id !== job) return; // of a file that nobody waits for
    if (id) endJob();
    if (isFatal) $("model").textContent = "";
    showProblem(message);
  },
};
worker.onmessage = ({ data }) => answers[data.kind](data);
worker.onerror = (event) => showProblem(`The worker of this page does not run: ${event.message || "its files cannot be loaded"}.`);

$("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) predict(file);
  event.target.value = ""; // so that the same file can be chosen again
});
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => { event.preventDefault(); $("drop").classList.add("over"); });
}
document.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) $("drop").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) predict(file);
});
$("preview").addEventListener("error", () => showPreview(false)); // the browser cannot play it
$("cancel").addEventListener("click", () => {
  worker.postMessage({ kind: "cancel" });
  endJob();
});
$("live").addEventListener("click", toggleCamera);
show("no-script", false);
