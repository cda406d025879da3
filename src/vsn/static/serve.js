// The page of `vsn serve`: upload a video, show its labels. Nothing is stored, here or on the server.

import { $, bars, clock, drawTimeline, element, percent, show, showProblem, showStatus } from "./parts.js";

const RECORD_SECONDS = 4;
let card = null;      // response of /v1/model
let video = null;     // the chosen file, and its name
let request = null;   // the running XMLHttpRequest
let answer = null;    // response of /v1/predict
let heat = null;      // response of /v1/explain, once requested
let camera = null;    // the running MediaRecorder

// --- the model ---------------------------------------------------------------------------------------

function describeResult(result) {
  const interval = result.top1_interval ? ` (${result.top1_interval.map(percent).join(" to ")})` : "";
  const accuracy = result.mean_average_precision !== undefined ? `mAP ${percent(result.mean_average_precision)}` : `top-1 ${percent(result.top1)}${interval}`;
  return `${accuracy} on ${result.num_videos} videos of ${result.split}, ${result.protocol}`;
}

async function loadCard() {
  try {
    const response = await fetch("v1/model");
    const body = await response.json().catch(() => null);
    if (!response.ok || body === null) {
      showProblem(explain(response.status, body));
      return;
    }
    card = body;
  } catch {
    showProblem("The service does not respond. Is it still running?");
    return;
  }
  const comma = card.classes.some((name) => name.includes(",")) ? "; " : ", ";
  const few = card.classes.slice(0, 3).join(comma);
  $("model").textContent = `${card.model}, ${card.classes.length} classes: ${few}` +
    (card.classes.length > 3 ? `${comma}…` : "");
  const limits = card.limits;
  $("limits").textContent = `Up to ${limits.max_upload_mb} MB and ${clock(limits.max_seconds)} minutes. ` +
    "The file is deleted after the prediction.";
  const measured = card.accuracy.filter((result) => result.order === "forward" && result.top1 !== undefined);
  const rows = {
    "Run": card.name,
    "Measured": measured.map(describeResult).join("; ") || "not yet: run vsn eval",
    "Frames": card.preprocessing.frames,
    "View": `${card.protocol}: ${card.preprocessing.view}`,
    "Weights": `${card.weights}, SHA-256 ${card.weights_sha256 || "unknown"}`,
    "Classes": card.classes,
    "Runs on": card.device + (card.exported ? `, exported to ${card.exported}` : ""),
    "vsn": card.vsn,
  };
  $("card").replaceChildren(...Object.entries(rows).flatMap(([name, text]) =>
    [element("dt", { textContent: name }), ...[text].flat().map((line) => element("dd", { textContent: line }))]));
  show("heat", card.heat_maps);
}

// --- requests ----------------------------------------------------------------------------------------

// What a refusal means. Proxies in front of the service respond too, with a page instead of our JSON.
function explain(status, body, file = null) {
  if (body?.error?.message) return body.error.message;
  const proxy = `A proxy in front of the service responded with status ${status}`;
  if (status === 413) {
    const limit = card ? ` The service takes up to ${card.limits.max_upload_mb} MB.` : "";
    return `${proxy}: it does not let uploads of ${megabytes(file)} through.${limit} Choose a smaller video, or ask the ` +
      "operator to raise the limit of the proxy (nginx: client_max_body_size).";
  }
  if (status === 429) return `${proxy}: too many requests from your address. Try again in a moment.`;
  if (status === 502 || status === 503) {
    return `${proxy}: it does not reach the service. Try again in a moment, or ask the operator whether the service runs.`;
  }
  if (status === 504) {
    return `${proxy}: it did not wait for the prediction. Choose a shorter video, or ask the operator to raise the ` +
      "time limit of the proxy (nginx: proxy_read_timeout).";
  }
  return `The service, or a proxy in front of it, responded with status ${status}.`;
}

const megabytes = (file) => (file ? `${(file.size / 1e6).toFixed(1)} MB` : "this size");

function post(path, file, onProgress) {
  const id = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  let polling = 0;
  const sent = new Promise((resolve, reject) => {
    request = new XMLHttpRequest();
    request.open("POST", path);
    request.setRequestHeader("X-Request-Id", id);
    request.responseType = "json";
    request.upload.onprogress = (event) => onProgress("upload", event.loaded, event.total);
    request.upload.onload = () => {
      onProgress("decode", 0, 0);
      polling = setInterval(() => poll(id, onProgress), 400);
    };
    request.onload = () => {
      if (request.status === 200) resolve(request.response);
      else reject(new Error(explain(request.status, request.response, file)));
    };
    request.onerror = () => reject(new Error("The service does not respond. Is it still running?"));
    request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    const form = new FormData();
    form.append("video", file);
    request.send(form);
  });
  return sent.finally(() => { clearInterval(polling); request = null; });
}

async function poll(id, onProgress) {
  try {
    const state = await (await fetch(`v1/progress/${id}`)).json();
    if (request !== null && state.stage !== "unknown") onProgress(state.stage, state.done, state.total);
  } catch { /* the request itself reports what is wrong */ }
}

function showProgress(stage, done, total) {
  const share = total ? done / total : 0;
  if (stage === "upload") showStatus(`Uploading: ${percent(share)}`, share);
  else if (stage === "decode") showStatus("Decoding …");
  else showStatus(total > 1 ? `Predicting: ${done} of ${total}` : "Predicting …", total > 1 ? share : null);
}

async function predict(file, name) {
  if (request !== null || camera !== null) {
    const current = camera === null ? `${video.name} is being predicted` : "The camera is recording";
    showProblem(`${current}: stop it or wait, then choose ${name} again.`);
    return;
  }
  showProblem("");
  const most = card?.limits.max_upload_mb;
  if (most && file.size > most * 1e6) {
    showProblem(`${name} has ${megabytes(file)}; the limit is ${most} MB. Choose a shorter video.`);
    return;
  }
  busy(true);
  show("result", false);
  video = { file, name };
  heat = null;
  try {
    answer = await post("v1/predict?frames=true&timeline=true", file, showProgress);
    await showResult();
  } catch (error) {
    if (error.name !== "AbortError") showProblem(error.message);
  } finally {
    busy(false);
  }
}

function busy(working) {
  show("working", working);
  for (const id of ["file", "record", "heat"]) $(id).disabled = working;
  if (working) showStatus("Starting …");
}

// --- result ------------------------------------------------------------------------------------------

async function showResult() {
  const preview = $("preview");
  if (preview.src) URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(video.file);
  showPreview(true);
  $("result-title").textContent = video.name;
  $("labels").replaceChildren(...bars(answer.predictions));
  const info = answer.video;
  $("facts").textContent = `${info.seconds.toFixed(1)} s, ${info.num_frames} frames of ${info.width}×${info.height}; ` +
    `protocol ${answer.protocol}, ${answer.num_frames} frames; decoded in ${answer.timing.decode_ms.toFixed(0)} ms, ` +
    `predicted in ${answer.timing.predict_ms.toFixed(0)} ms. ${answer.note}`;
  showTimeline(answer.timeline);
  await showFrames(answer.frames);
  $("heat").setAttribute("aria-pressed", "false");
  $("heat").textContent = "Show heat maps";
  show("heat-note", false);
  show("result");
  $("result").focus();
}

function showPreview(visible) {
  show("seen", visible);
  show("preview", visible);
  document.querySelector(".columns").classList.toggle("single", !visible);
}

async function showFrames(urls, kind = "Frame") {
  // All have the size of the first; with it the page does not move when they are drawn.
  const first = element("img", { src: urls[0] });
  await first.decode();
  const [width, height] = [first.naturalWidth, first.naturalHeight];
  const text = (place) => `${kind} ${place + 1} of ${urls.length} of ${video.name}: ${answer.predictions[0].label}`;
  $("frames").replaceChildren(...urls.map((url, place) => element("img", { src: url, alt: text(place), width, height })));
}

// What windows saw, in order and merged: between windows that are far apart nothing was looked at.
function seenIntervals(windows) {
  const seen = [];
  for (const { start_seconds: start, end_seconds: end } of windows) {
    const last = seen.at(-1);
    if (last && start <= last.end) last.end = Math.max(last.end, end);
    else seen.push({ start, end });
  }
  return seen;
}

// What to draw: segments, and the time without a label, as far as windows saw them.
export function pieces({ segments, windows }) {
  const all = [];
  for (const { start, end } of seenIntervals(windows)) {
    let at = start;
    const add = (until, { label = null, probability = null } = {}) => {
      if (until - at > 0.001) all.push({ start: at, end: until, label, probability });
      at = Math.max(at, until);
    };
    for (const segment of segments) {
      if (segment.end_seconds <= at || segment.start_seconds >= end) continue;
      add(segment.start_seconds);
      add(Math.min(segment.end_seconds, end), segment);
    }
    add(end);
  }
  return all;
}

export function showTimeline(timeline) {
  show("timeline-part", timeline !== null);
  if (timeline === null) return;
  const apart = timeline.every_seconds > timeline.window_seconds;
  $("moment").textContent = "Select an interval to see its label." + (apart
    ? ` ${timeline.window_seconds.toFixed(1)} s were looked at every ${timeline.every_seconds.toFixed(1)} s; the rest is empty.` : "");
  drawTimeline(timeline.seconds, pieces(timeline), (start) => {
    if (!$("preview").hidden) $("preview").currentTime = start;
  });
}

async function toggleHeat() {
  const button = $("heat");
  if (button.getAttribute("aria-pressed") === "true") {
    await showFrames(answer.frames);
    button.setAttribute("aria-pressed", "false");
    button.textContent = "Show heat maps";
    show("heat-note", false);
    return;
  }
  showProblem("");
  if (heat === null) {
    busy(true);
    try {
      heat = await post(`v1/explain?label=${encodeURIComponent(answer.predictions[0].label)}`, video.file, showProgress);
    } catch (error) {
      if (error.name !== "AbortError") showProblem(error.message);
      return;
    } finally {
      busy(false);
    }
  }
  await showFrames(heat.heat_maps, "Heat map of frame");
  $("heat-note").textContent = `Where the score of “${heat.label}” comes from: red much, blue little (Grad-CAM).`;
  show("heat-note");
  button.setAttribute("aria-pressed", "true");
  button.textContent = "Hide heat maps";
  button.focus();
}

// --- the camera --------------------------------------------------------------------------------------

async function record() {
  if (camera !== null) {
    camera.stop();
    return;
  }
  showProblem("");
  let stream = null;
  // A second press, while the browser asks for the camera, would open it twice, and only one would be closed.
  $("record").disabled = true;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user" }, audio: false });
    // A file may have been dropped meanwhile.
    if (request !== null) throw new DOMException("busy", "AbortError");
    camera = new MediaRecorder(stream);
  } catch (error) {
    for (const track of stream?.getTracks() ?? []) track.stop();
    if (error.name !== "AbortError" || request === null) {
      showProblem(`The camera cannot be used (${error.name}). Allow it in the browser, or choose a file.`);
    }
    return;
  } finally {
    $("record").disabled = request !== null;
  }
  const recorded = [];
  const type = camera.mimeType;
  camera.ondataavailable = (event) => recorded.push(event.data);
  $("camera").srcObject = stream;
  show("camera");
  $("camera").play();
  $("file").disabled = true;
  let left = RECORD_SECONDS;
  const count = () => { $("record").textContent = `Recording: ${left} s left, press to stop`; };
  count();
  const ticking = setInterval(() => {
    left -= 1;
    if (left > 0) count();
    else if (camera?.state === "recording") camera.stop();
  }, 1000);
  camera.onstop = () => {
    clearInterval(ticking);
    for (const track of stream.getTracks()) track.stop();
    $("camera").srcObject = null;
    show("camera", false);
    $("record").textContent = "Record from the camera";
    $("file").disabled = false;
    camera = null;
    predict(new Blob(recorded, { type }), "Recording");
  };
  camera.start();
}

// --- events ------------------------------------------------------------------------------------------

$("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) predict(file, file.name);
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
  const [file, ...others] = event.dataTransfer.files;
  if (others.length) showProblem(`${others.length + 1} files were dropped: one video at a time, please.`);
  else if (file) predict(file, file.name);
});
$("preview").addEventListener("error", () => showPreview(false)); // the browser cannot play it
$("cancel").addEventListener("click", () => request?.abort());
$("heat").addEventListener("click", toggleHeat);
$("record").addEventListener("click", record);
show("no-script", false);
show("record", Boolean(navigator.mediaDevices?.getUserMedia && window.MediaRecorder));
loadCard();
