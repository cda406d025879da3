// The worker of the page: it decodes videos, computes clips and runs the model. Nothing leaves this machine.
//
// In:  {kind: "file", id, file}, {kind: "cancel"}, {kind: "live"}, {kind: "frame", frame, step}, {kind: "stop"}
// Out: {kind: "ready", model, runtime}, {kind: "progress", ...}, {kind: "answer", ...}, {kind: "timeline", ...},
//      {kind: "grid", ...}, {kind: "filling", share}, {kind: "window", ...}, {kind: "problem", id, message}

import { scaledSize } from "./pixels.js";
import {
  WindowGrid, WindowLabeler, atConstantRate, averageViews, clipFrames, cropsOf, fileGrid, fileWindows, mergeWindows,
  probabilitiesOf,
} from "./sampling.js";
import { VideoFile, VideoProblem, pictureOf } from "./video.js";

const MOST_WINDOWS = 24; // of a file: each costs as much as the video's label
const USUAL_RATE = 25;

let model = null;   // model.json
let ort = null;
let session = null;
let current = 0;    // the file that the page waits for
let live = null;

// --- the model ------------------------------------------------------------------------------------------------

async function load() {
  model = await (await fetched("./model.json")).json();
  const bytes = await (await fetched("./model.onnx")).arrayBuffer();
  // worker.js?device=wasm or webgpu chooses, for comparisons.
  const wanted = new URL(self.location.href).searchParams.get("device");
  const adapter = wanted === "wasm" ? null : await navigator.gpu?.requestAdapter().catch(() => null);
  // A graphics card that the processor imitates is many times slower than wasm.
  const isImitated = adapter?.info?.isFallbackAdapter ?? adapter?.isFallbackAdapter ?? false;
  if (adapter && (!isImitated || wanted === "webgpu")) {
    try {
      return await start(bytes, "webgpu");
    } catch (error) {
      console.info("WebGPU cannot run this model, wasm does:", error.message);
    }
  }
  return start(bytes, "wasm");
}

async function fetched(name) {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name} is not in the folder (status ${response.status})`);
  return response;
}

async function start(bytes, device) {
  ort = await import(`./lib/ort.${device}.js`);
  const build = device === "webgpu" ? "asyncify" : "wasm";
  const at = (name) => new URL(`./lib/${name}`, self.location.href).href;
  ort.env.wasm.wasmPaths = { mjs: at(`ort-${build}.js`), wasm: at(`ort-${build}.wasm`) };
  // Threads share memory, which browsers allow only to pages that a server isolates by two headers.
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(8, navigator.hardwareConcurrency || 1) : 1;
  ort.env.logLevel = "error";
  session = await ort.InferenceSession.create(bytes, { executionProviders: [device], logSeverityLevel: 3 });
  const [height, width] = [model.height ?? model.crop_size, model.width ?? model.crop_size];
  // Kernels are compiled at the first run, and what a device cannot run shows here.
  await run(new Uint8Array(model.num_frames * model.channels * height * width), height, width);
  return { device, threads: ort.env.wasm.numThreads };
}

/** Logits of one clip, uint8 `(T, C, height, width)`. */
async function run(clip, height, width) {
  const isFloat = model.input === "float32";
  const data = isFloat ? Float32Array.from(clip, (value) => value / 255) : clip;
  const tensor = new ort.Tensor(model.input, data, [1, model.num_frames, model.channels, height, width]);
  const { logits } = await session.run({ clip: tensor });
  const values = Array.from(logits.data);
  if (!values.every(Number.isFinite)) throw new VideoProblem("The model gives no finite scores.");
  return values;
}

/** The logits of every crop of a clip, from its pictures `[instant][L]`. */
async function scoreViews(instants) {
  const { height, width } = instants[0][0];
  const logits = [];
  for (const crop of cropsOf(model, height, width)) {
    const clip = new Uint8Array(model.num_frames * model.channels * crop.height * crop.width);
    let at = 0;
    for (const pictures of instants) {
      for (const picture of pictures) at = copyCrop(picture, crop, clip, at);
    }
    logits.push(await run(clip, crop.height, crop.width));
  }
  return logits;
}

function copyCrop({ planes, height, width }, crop, clip, at) {
  for (let c = 0; c < 3; c++) {
    for (let y = 0; y < crop.height; y++) {
      const start = (c * height + crop.top + y) * width + crop.left;
      const row = planes.subarray(start, start + crop.width);
      clip.set(row, at);
      if (crop.mirrored) clip.subarray(at, at + crop.width).reverse();
      at += crop.width;
    }
  }
  return at;
}

// --- files ----------------------------------------------------------------------------------------------------

async function predict(file, id) {
  const isWanted = () => id === current;
  const started = performance.now();
  const video = await VideoFile.open(file, model.short_side);
  try {
    const constant = model.by === "time" ? atConstantRate(video) : { numFrames: video.times.length, rate: video.rate, stored: (i) => i };
    const clips = clipFrames(model, constant.numFrames, constant.rate).map((clip) =>
      clip.map((instant) => instant.map(constant.stored)));
    const windows = planWindows(video);
    const pictures = new Map();
    const wanted = [...new Set([...clips.flat(2), ...windows.list.flatMap(({ instants }) => instants.flat())])].sort((a, b) => a - b);
    for await (const [index, picture] of video.frames(wanted)) {
      if (!isWanted()) return;
      pictures.set(index, picture);
      postMessage({ kind: "progress", id, stage: "decode", done: pictures.size, total: wanted.length });
    }
    const decoded = performance.now();
    const shown = (instants) => instants.map((instant) => instant.map((index) => pictures.get(index)));
    const views = [];
    for (const clip of clips) {
      postMessage({ kind: "progress", id, stage: "predict", done: views.length, total: clips.length });
      views.push(...(await scoreViews(shown(clip))));
      if (!isWanted()) return;
    }
    const logits = averageViews(views, model.average);
    const [height, width] = video.storedSize;
    postMessage({
      kind: "answer", id, logits, indices: clips[0].flat(),
      predictions: ranked(probabilitiesOf(logits, model.task === "multilabel")),
      frames: clips[0].map(([index]) => pictures.get(index)).map(({ planes, height: h, width: w }) => ({ planes, height: h, width: w })),
      video: { seconds: video.seconds, numFrames: video.times.length, height, width, codec: video.codec },
      note: video.note,
      decodeMs: decoded - started, predictMs: performance.now() - decoded,
      numWindows: windows.list.length,
    });
    // The label does not wait for the timeline.
    const predictions = [];
    for (const { number, instants } of windows.list) {
      postMessage({ kind: "progress", id, stage: "timeline", done: predictions.length, total: windows.list.length });
      const scores = averageViews(await scoreViews(shown(instants)), model.average);
      if (!isWanted()) return;
      predictions.push(windows.labeler.label(number, probabilitiesOf(scores, false)));
    }
    if (predictions.length) {
      postMessage({ kind: "timeline", id, seconds: video.seconds, segments: mergeWindows(predictions, video.seconds) });
    }
  } finally {
    video.close();
  }
}

function planWindows(video) {
  const tail = (model.num_consecutive - 1) / (video.rate || USUAL_RATE), seconds = model.window_seconds;
  if (!model.takes_windows || tail >= seconds || video.seconds < 1.5 * seconds) return { list: [] };
  const grid = fileGrid(seconds, model.num_frames, tail, video.seconds, MOST_WINDOWS);
  return { list: fileWindows(grid, video, model.num_consecutive), labeler: new WindowLabeler(model.classes, grid, model.windows) };
}

const ranked = (probabilities) =>
  probabilities.map((probability, i) => ({ label: model.classes[i], probability })).sort((a, b) => b.probability - a.probability).slice(0, 5);

// --- the camera -------------------------------------------------------------------------------------------------

function startLive() {
  const tail = (model.num_consecutive - 1) / USUAL_RATE;
  const grid = new WindowGrid(model.window_seconds, model.num_frames, { tail });
  live = { grid, labeler: new WindowLabeler(model.classes, grid, model.windows), steps: new Map(), isBusy: false, skipped: 0 };
  postMessage({ kind: "grid", stepSeconds: grid.stepSeconds, numConsecutive: model.num_consecutive });
}

/** Take a frame of an instant; when a window is complete, label it, unless the model is still busy with an earlier one. */
async function takeFrame({ frame, step }) {
  const state = live;
  let picture;
  try {
    if (!state) return;
    const size = scaledSize(frame.visibleRect.height, frame.visibleRect.width, model.short_side);
    ({ picture } = await pictureOf(frame, ...size));
  } finally {
    frame.close();
  }
  if (state !== live) return;
  const stack = state.steps.get(step) ?? [];
  // A camera that is turned gives frames of another size: windows start over.
  const [[first] = []] = [...state.steps.values()];
  if (first && (first.height !== picture.height || first.width !== picture.width)) state.steps.clear();
  stack.push(picture);
  state.steps.set(step, stack);
  if (stack.length < model.num_consecutive) return;
  const window = step - model.num_frames + 1;
  for (const old of state.steps.keys()) if (old < window) state.steps.delete(old);
  const instants = state.grid.steps(Math.max(window, 0)).map((each) => state.steps.get(each));
  if (window < 0 || !instants.every((each) => each?.length === model.num_consecutive)) {
    postMessage({ kind: "filling", share: state.steps.size / model.num_frames });
    return;
  }
  if (state.isBusy) {
    state.skipped++;
    return;
  }
  state.isBusy = true;
  const started = performance.now();
  try {
    const logits = averageViews(await scoreViews(instants), model.average);
    if (state !== live) return;
    const prediction = state.labeler.label(window, probabilitiesOf(logits, false));
    const { smoothed, ...rest } = prediction;
    postMessage({ kind: "window", ...rest, predictions: ranked(smoothed), ms: performance.now() - started, skipped: state.skipped });
  } finally {
    state.isBusy = false;
  }
}

// --- messages -----------------------------------------------------------------------------------------------------

// One session runs one clip at a time: a second file waits until the first has noticed that it is not wanted.
let queue = Promise.resolve();
const problem = (id, error) => {
  if (!(error instanceof VideoProblem)) console.info(error);
  postMessage({ kind: "problem", id, message: error instanceof VideoProblem ? error.message : `It failed: ${error.message}` });
};

self.onmessage = ({ data }) => {
  if (data.kind === "file") {
    current = data.id;
    queue = queue.then(() => (data.id === current ? predict(data.file, data.id) : null)).catch((error) => problem(data.id, error));
  } else if (data.kind === "cancel") {
    current = 0;
  } else if (data.kind === "live") {
    startLive();
  } else if (data.kind === "stop") {
    live = null;
  } else if (data.kind === "frame") {
    takeFrame(data).catch((error) => problem(0, error));
  }
};

load().then(
  (runtime) => postMessage({ kind: "ready", model, runtime }),
  (error) => postMessage({ kind: "problem", id: 0, message: `The model cannot be loaded: ${error.message}`, isFatal: true }),
);
