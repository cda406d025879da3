// Which frames of a video the model sees: the rules of evaluation (`vsn.data.sampling`, `vsn.data.video.constant_rate`) and
// of sliding windows (`vsn.stream`). Frames are counted from 0, times are in seconds since the first frame.

const DENSE_WINDOW = 64;
const range = (count) => Array.from({ length: count }, (_, i) => i);
const sum = (values) => values.reduce((a, b) => a + b, 0);

// --- test clips ------------------------------------------------------------------------------------------

/**
 * Return the clips of a video of `numFrames` frames, each a list of the frames of its T instants: `[clip][instant][L]`.
 *
 * @param plan `{clips, sampling, clip_rate, num_frames, num_consecutive}` of the model.
 * @param rate frames per second of the video; 0 if unknown.
 */
export function clipFrames(plan, numFrames, rate) {
  const L = plan.num_consecutive;
  return clipStarts(plan, numFrames, rate).map((starts) =>
    starts.map((start) => range(L).map((i) => Math.min(start + i, numFrames - 1))));
}

function clipStarts({ clips, sampling, clip_rate: clipRate, num_frames: T, num_consecutive: L }, numFrames, rate) {
  const steps = range(T), numStarts = numFrames - L + 1;
  const length = Math.max(1, numStarts) / T;
  const centers = numStarts < 1
    ? steps.map(() => 0)
    : steps.map((i) => Math.min(Math.floor(numStarts / T / 2 + (numStarts / T) * i), numStarts - 1));
  const stride = Math.max(1, Math.floor(DENSE_WINDOW / T));
  const dense = (start) => steps.map((i) => (start + stride * i) % numFrames);
  const numWindows = Math.max(1, numFrames - (DENSE_WINDOW - 1));
  if (clips === "two") return [centers, steps.map((i) => Math.floor(length * i))];
  if (clips === "dense") return range(10).map((i) => dense(Math.floor((i * (numWindows - 1)) / 9)));
  if (sampling === "segment") return [centers];
  if (sampling === "dense") return [dense(Math.floor(Math.max(0, numWindows - 2) / 2))];
  const distance = rate ? rate / clipRate : 1;
  const start = Math.max(0, numFrames - 1 - (T - 1) * distance) / 2;
  return [steps.map((i) => Math.min(Math.floor(start + distance * i), numFrames - 1))];
}

// --- frames that are unevenly spaced in time ---------------------------------------------------------------

/**
 * Return a video at a constant rate: `{numFrames, rate, stored}`, where `stored(i)` is the stored frame that is shown as
 * its frame i. Only videos with unevenly spaced frames change.
 */
export function atConstantRate({ times, rate, lastSeconds }) {
  const unchanged = { numFrames: times.length, rate, stored: (i) => i };
  if (times.length === 1) return unchanged;
  const last = times.at(-1), end = last + lastSeconds, numIntervals = times.length - 1;
  const difference = rate ? Math.abs(last - numIntervals / rate) : 0;
  const isAnnounced = !rate || difference <= Math.max(0.5, 0.02 * numIntervals) / rate + 1e-3;
  const even = evenInterval(times, lastSeconds);
  if (even !== null) return isAnnounced ? unchanged : { ...unchanged, rate: 1 / even };
  const interval = usualInterval(times);
  const shown = times.slice();
  let seconds = end;
  // A frame that stays for as good as the whole video is an error of the clock.
  const stays = shown.map((time, i) => (shown[i + 1] ?? end) - time);
  const longest = stays.indexOf(Math.max(...stays));
  if (stays[longest] > 0.99 * end) {
    for (let i = longest + 1; i < shown.length; i++) shown[i] -= stays[longest] - interval;
    seconds -= stays[longest] - interval;
  }
  const first = shown.map((time) => Math.floor(time / interval + 0.501));
  const stored = (i) => {
    let low = 0, high = first.length; // the last frame that is first shown at i or before
    while (low < high) {
      const middle = (low + high) >> 1;
      if (first[middle] <= i) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  };
  return { numFrames: Math.max(first.at(-1) + 1, roundHalfEven(seconds / interval)), rate: 1 / interval, stored };
}

function roundHalfEven(value) {
  const rounded = Math.round(value);
  return Math.abs(value % 1) === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}

/** The seconds between frames if they are evenly spaced, up to half a frame; else null. */
function evenInterval(times, lastSeconds) {
  const last = times.at(-1);
  const all = lastSeconds > last / (times.length - 1) ? [...times, last + lastSeconds] : times;
  const number = (i) => i - (all.length - 1) / 2;
  const interval = sum(all.map((time, i) => number(i) * time)) / sum(all.map((_, i) => number(i) ** 2));
  let least = Infinity, most = -Infinity;
  all.forEach((time, i) => {
    const rest = time - interval * number(i);
    least = Math.min(least, rest);
    most = Math.max(most, rest);
  });
  return most - least <= interval + 1e-3 ? interval : null;
}

/** The mean of the intervals near their median: the seconds between frames that most frames have. */
export function usualInterval(times) {
  const intervals = times.slice(1).map((time, i) => time - times[i]);
  const ordered = intervals.filter((interval) => interval > 0).sort((a, b) => a - b);
  const median = ordered[(ordered.length - 1) >> 1];
  const near = intervals.filter((interval) => Math.abs(interval - median) <= 0.4 * median + 1e-3);
  return sum(near) / near.length;
}

// --- crops ------------------------------------------------------------------------------------------------

/** Return the crops of a resized frame as `{top, left, height, width, mirrored}`. */
export function cropsOf({ crops, crop_size: size }, height, width) {
  const crop = (top, left, h, w, mirrored = false) => ({ top, left, height: h, width: w, mirrored });
  if (crops === "whole") return [crop(0, 0, height, width)];
  if (crops === "center") {
    return [crop(roundHalfEven((height - size) / 2), roundHalfEven((width - size) / 2), size, size)];
  }
  if (crops === "three") {
    const side = Math.min(height, width), step = Math.floor((Math.max(height, width) - side) / 4);
    return [0, 4 * step, 2 * step].map((start) => (width >= height ? crop(0, start, side, side) : crop(start, 0, side, side)));
  }
  const down = Math.floor((height - size) / 4), right = Math.floor((width - size) / 4);
  const corners = [[0, 0], [0, 4], [4, 0], [4, 4], [2, 2]];
  return [false, true].flatMap((mirrored) =>
    corners.map(([y, x]) => crop(y * down, x * right, size, size, mirrored)));
}

// --- windows ------------------------------------------------------------------------------------------------

/** Sliding windows of `seconds` with T instants each; see `vsn.stream.grid.WindowGrid`. */
export class WindowGrid {
  /** @param tail seconds from the first to the last frame of an instant. @param stride instants from window to window. */
  constructor(seconds, numFrames, { tail = 0, stride = 1 } = {}) {
    Object.assign(this, { seconds, numFrames, tail, stride, stepSeconds: (seconds - tail) / numFrames });
  }

  get every() { return this.stride * this.stepSeconds; }
  instant(step) { return this.stepSeconds * (step + 0.5); }
  steps(window) { return range(this.numFrames).map((i) => window * this.stride + i); }
  interval(window) { return [window * this.every, window * this.every + this.seconds]; }
}

/** Return the grid of a file's windows, as far apart as a video of `videoSeconds` needs to have at most `mostWindows`. */
export function fileGrid(seconds, numFrames, tail, videoSeconds, mostWindows) {
  const grid = new WindowGrid(seconds, numFrames, { tail });
  const numSteps = (videoSeconds - seconds) / grid.stepSeconds + 0.5;
  return new WindowGrid(seconds, numFrames, { tail, stride: Math.max(1, Math.floor(numSteps / mostWindows) + 1) });
}

/** Return the windows of a file: `{number, instants}`, with the L frames that each instant shows. */
export function fileWindows(grid, { times, lastSeconds }, numConsecutive) {
  const end = times.at(-1) + lastSeconds, last = times.length - 1;
  const shownAt = (seconds) => {
    let i = 0;
    while (i < last && times[i + 1] <= seconds + 1e-6) i++;
    return i;
  };
  const windows = [];
  for (let number = 0; ; number++) {
    const steps = grid.steps(number);
    if (grid.instant(steps.at(-1)) > end + 1e-6) return windows;
    const instants = steps.map((step) => {
      const first = shownAt(grid.instant(step));
      return range(numConsecutive).map((i) => Math.min(first + i, last));
    });
    windows.push({ number, instants });
  }
}

/** Smooth the probabilities of consecutive windows and label them; see `vsn.stream.labels.WindowLabeler`. */
export class WindowLabeler {
  constructor(classes, grid, { smooth, enter, leave }) {
    Object.assign(this, { classes, grid, smooth, enter, leave, mean: null, current: null, window: null });
  }

  /** Return `{start, end, label, probability, smoothed}` of a window after earlier ones; the label null is unknown. */
  label(window, probabilities) {
    const numWindows = this.window === null ? 1 : window - this.window;
    this.window = window;
    const share = this.smooth ? -Math.expm1((-numWindows * this.grid.every) / this.smooth) : 1;
    this.mean = this.mean?.map((mean, i) => mean + share * (probabilities[i] - mean)) ?? [...probabilities];
    const best = this.mean.indexOf(Math.max(...this.mean));
    if (this.mean[best] >= this.enter) this.current = best;
    else if (this.current !== null && this.mean[this.current] < this.leave) this.current = null;
    const [start, end] = this.grid.interval(window);
    const label = this.current === null ? null : this.classes[this.current];
    return { start, end, label, probability: this.mean[this.current ?? best], smoothed: [...this.mean] };
  }
}

/** Merge consecutive predictions with one label into segments `{start, end, label, probability}` of a video. */
export function mergeWindows(predictions, seconds) {
  const middles = predictions.map(({ start, end }) => (start + end) / 2);
  const edges = [0, ...middles.slice(1).map((middle, i) => (middle + middles[i]) / 2), seconds];
  const segments = [];
  predictions.forEach(({ label, probability }, i) => {
    const before = segments.at(-1);
    if (before && before.label === label) {
      before.end = edges[i + 1];
      before.all.push(probability);
    } else {
      segments.push({ start: edges[i], end: edges[i + 1], label, all: [probability] });
    }
  });
  return segments.map(({ all, ...segment }) => ({ ...segment, probability: sum(all) / all.length }));
}

// --- scores ---------------------------------------------------------------------------------------------------

export function softmax(logits) {
  const most = Math.max(...logits);
  const shares = logits.map((logit) => Math.exp(logit - most));
  const total = sum(shares);
  return shares.map((share) => share / total);
}

/** Average the logits of views, or their probabilities, of which it returns the logarithm. */
export function averageViews(views, average) {
  const mean = (rows) => rows[0].map((_, label) => sum(rows.map((row) => row[label])) / rows.length);
  return average === "softmax" ? mean(views.map(softmax)).map(Math.log) : mean(views);
}

export const probabilitiesOf = (logits, isMultiLabel) =>
  isMultiLabel ? logits.map((logit) => 1 / (1 + Math.exp(-logit))) : softmax(logits);
