// Read a video file: the times of its frames, and the frames at some indices, resized and as displayed.
//
// Mediabunny reads the container, the browser's own decoder (WebCodecs) the frames. Every frame is found by its time stamp,
// so that frame i is the i-th that a player shows; nothing is sought by guesses of a player.

import { ALL_FORMATS, BlobSource, EncodedPacketSink, Input, VideoSampleSink } from "./lib/mediabunny.js";
import { convert, isPlanar, resizeRgba, scaledSize } from "./pixels.js";
import { usualInterval } from "./sampling.js";

const MOST_PIXELS = 36_000_000, MOST_ASPECT = 16;
const LEFT = { colorAtLeft: true, colorAtTop: false }, BETWEEN = { colorAtLeft: false, colorAtTop: false };
const TOP_LEFT = { colorAtLeft: true, colorAtTop: true };

/** A video that cannot be read; the message is for the user. */
export class VideoProblem extends Error {}

/** One frame, resized: planes of RGB, Uint8Array `(3, height, width)`. */
export class Picture {
  constructor(planes, height, width) { Object.assign(this, { planes, height, width }); }

  /** Return the picture turned clockwise by a multiple of 90 degrees, and then mirrored left to right. */
  turned(degrees, mirrored) {
    if (!degrees && !mirrored) return this;
    const { height, width, planes } = this;
    const isSideways = degrees % 180 !== 0;
    const newHeight = isSideways ? width : height, newWidth = isSideways ? height : width;
    // Where the first pixel shown is stored, and the steps to the next pixel and to the next row.
    let [start, right, down] = {
      0: [0, 1, width],
      90: [(height - 1) * width, -width, 1],
      180: [height * width - 1, -1, -width],
      270: [width - 1, width, -1],
    }[degrees];
    if (mirrored) {
      start += right * (newWidth - 1);
      right = -right;
    }
    const out = new Uint8Array(planes.length);
    for (let c = 0, at = 0; c < 3; c++) {
      for (let y = 0; y < newHeight; y++) {
        let from = c * height * width + start + y * down;
        for (let x = 0; x < newWidth; x++, from += right) out[at++] = planes[from];
      }
    }
    return new Picture(out, newHeight, newWidth);
  }
}

export class VideoFile {
  /** Open a file. Throws `VideoProblem`. */
  static async open(file, shortSide) {
    const input = new Input({ formats: ALL_FORMATS, source: new BlobSource(file) });
    const named = (reason) => new VideoProblem(`${file.name || "The recording"}: ${reason}`);
    // Mediabunny throws errors of its own for files that end early.
    const track = (await input.canRead().catch(() => false)) && (await input.getPrimaryVideoTrack().catch(() => null));
    if (track === false) {
      throw named("not a video that this page can read. It takes MP4, MOV, WebM, Matroska and MPEG-TS.");
    }
    if (!track) throw named("it has no video stream, or only a part of the file is there.");
    const codec = await track.getCodec();
    if (!(await track.canDecode())) {
      throw named(`this browser does not decode its codec (${codec ?? "unknown"}). Convert it: ffmpeg -i IN -c:v libx264 OUT.mp4`);
    }
    const video = new VideoFile();
    Object.assign(video, { input, track, codec, shortSide, named, note: "" });
    // What the file says: a decoded frame without colors of its own claims to be BT.709, FFmpeg takes BT.601.
    video.colors = await track.getColorSpace();
    video.siting = await colorSiting(file, codec, (await track.getCodecParameterString()) ?? "");
    video.rotation = await track.getRotation();
    video.isMirrored = await track.getFlip();
    try {
      await video.#index();
    } catch (error) {
      throw error instanceof VideoProblem ? error : named(`it is damaged (${error.message}).`);
    }
    return video;
  }

  /** List the frames in the order of display. */
  async #index() {
    const sink = new EncodedPacketSink(this.track);
    const mayHide = this.codec === "vp8" || this.codec === "vp9";
    const packets = [];
    for await (const packet of sink.packets(undefined, undefined, { metadataOnly: !mayHide })) {
      // An edit list cuts off what is before zero.
      if (packet.timestamp >= -1e-9 && !(mayHide && isHidden(packet.data, this.codec))) packets.push(packet);
    }
    if (!packets.length) throw this.named("its video stream is empty.");
    const isAscending = packets.every((packet, i) => !i || packet.timestamp > packets[i - 1].timestamp);
    this.stamps = packets.map((packet) => packet.timestamp).sort((a, b) => a - b);
    this.times = this.stamps.map((stamp) => stamp - this.stamps[0]);
    const announced = isAscending ? packets.at(-1).duration : 0;
    this.lastSeconds = announced || (this.times.length > 1 ? usualInterval(this.times) : 1);
    this.rate = this.times.length / (this.times.at(-1) + this.lastSeconds);
    this.seconds = this.times.at(-1) + this.lastSeconds;
  }

  /** Decode frames, ascending indices without repeats; yields `[index, Picture]`. */
  async *frames(indices) {
    const sink = new VideoSampleSink(this.track);
    let place = 0;
    // A little after each time stamp, which rounding must not move to the frame before.
    const stamps = indices.map((index) => this.stamps[index] + 1e-6);
    try {
      for await (const sample of sink.samplesAtTimestamps(stamps)) {
        const index = indices[place++];
        if (sample === null) throw this.named(`frame ${index} of ${this.times.length} does not decode.`);
        try {
          yield [index, await this.#picture(sample)];
        } finally {
          sample.close();
        }
      }
    } catch (error) {
      throw error instanceof VideoProblem ? error : this.named(`the browser cannot decode it (${error.message}).`);
    }
  }

  async #picture(sample) {
    const frame = sample.toVideoFrame();
    try {
      const { width, height } = frame.visibleRect;
      this.#checkSize(height, width);
      const isSideways = this.rotation % 180 !== 0;
      // All frames get the size of the first one.
      this.size ??= isSideways ? scaledSize(width, height, this.shortSide) : scaledSize(height, width, this.shortSide);
      const [shownHeight, shownWidth] = this.size;
      const { picture, note } = await pictureOf(frame, ...(isSideways ? [shownWidth, shownHeight] : this.size), {
        colors: this.colors,
        siting: this.siting,
      });
      this.note = note;
      this.storedSize = isSideways ? [width, height] : [height, width];
      return picture.turned(this.rotation, this.isMirrored);
    } finally {
      frame.close();
    }
  }

  #checkSize(height, width) {
    if (height * width > MOST_PIXELS) throw this.named(`its frames have ${height}x${width} pixels; the limit is 36 million.`);
    if (Math.max(height, width) > MOST_ASPECT * Math.min(height, width)) {
      throw this.named(`its frames have ${height}x${width} pixels; the longer side may have 16 times the shorter one. Crop it.`);
    }
  }

  close() { this.input.dispose(); }
}

/** Where color samples are between the pixels that share them: H.264 and HEVC define it, other codecs where a file says so. */
async function colorSiting(file, codec, parameters) {
  if (codec === "avc" || codec === "hevc") return LEFT;
  // av01.PROFILE.LEVEL.BITS.MONOCHROME.xyp: p is 1 for the left, 2 for the top left.
  if (codec === "av1") return { 1: LEFT, 2: TOP_LEFT }[parameters.split(".")[5]?.[2]] ?? BETWEEN;
  const head = new Uint8Array(await file.slice(0, 65536).arrayBuffer());
  for (let i = 0; i + 3 < head.length; i++) {
    if (head[i] !== 0x55 || head[i + 1] !== 0xb0) continue;
    const colour = matroskaColour(head, i + 2);
    if (colour?.has(0x55b7)) {
      const isLeft = colour.get(0x55b7) === 1, isTop = colour.get(0x55b8) === 1;
      return { colorAtLeft: isLeft, colorAtTop: isTop };
    }
  }
  return BETWEEN;
}

/** The elements of Matroska's Colour whose value is a byte, by their id; null if it is none. */
function matroskaColour(bytes, at) {
  if (bytes[at] < 0x81) return null; // lengths below 127, as Colour has, take a byte
  const end = at + 1 + (bytes[at] & 0x7f), values = new Map();
  for (at += 1; at < end; ) {
    const id = (bytes[at] << 8) | bytes[at + 1], size = bytes[at + 2] & 0x7f;
    if (id < 0x55b1 || id > 0x55d0 || bytes[at + 2] < 0x81) return null;
    if (size === 1) values.set(id, bytes[at + 3]);
    at += 3 + size;
  }
  return at === end ? values : null;
}

/** Whether a packet of VP8 or VP9 only changes what later frames refer to. */
function isHidden(data, codec) {
  if (codec === "vp8") return data.length > 0 && !((data[0] >> 4) & 1);
  const isSuperframe = data.at(-1) >> 5 === 0b110;
  if (isSuperframe || data[0] >> 6 !== 0b10) return false;
  const shift = (data[0] & 0b110000) === 0b110000 ? 1 : 0; // profile 3 has one more bit
  const showsExisting = (data[0] >> (3 - shift)) & 1, isShown = (data[0] >> (1 - shift)) & 1;
  return !showsExisting && !isShown;
}

/**
 * Convert a `VideoFrame` to RGB of this size, as stored: `{picture, note}`. The note says where the colors are the
 * browser's and not those of Python.
 */
export async function pictureOf(frame, height, width, { colors = frame.colorSpace, siting = LEFT } = {}) {
  const { width: fromWidth, height: fromHeight } = frame.visibleRect;
  const { matrix, transfer, fullRange } = colors;
  const isHdr = transfer === "pq" || transfer === "hlg";
  if (isPlanar(frame.format) && !isHdr) {
    const data = new Uint8Array(frame.allocationSize());
    const layout = await frame.copyTo(data);
    const stored = { data, layout: layout.map(({ offset, stride }) => ({ offset, stride })), format: frame.format };
    const size = { width: fromWidth, height: fromHeight };
    const planes = convert({ ...stored, ...size, matrix, fullRange: Boolean(fullRange), ...siting }, height, width);
    return { picture: new Picture(planes, height, width), note: "" };
  }
  const canvas = new OffscreenCanvas(fromWidth, fromHeight);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(frame, 0, 0, fromWidth, fromHeight);
  const rgba = context.getImageData(0, 0, fromWidth, fromHeight).data;
  const kind = isHdr ? "HDR" : `format ${frame.format ?? "of the graphics card"}`;
  const note = `The browser converted the colors (${kind}): probabilities differ a little from those of Python.`;
  return { picture: new Picture(resizeRgba(rgba, fromHeight, fromWidth, height, width), height, width), note };
}
