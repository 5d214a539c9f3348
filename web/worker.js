/**
 * Restores images with ONNX Runtime, away from the page's own thread.
 *
 * Takes `{ image, network, sigma }`, answers with `{ type: "noise" | "tile" | "done" |
 * "error" }`. The page cancels by ending the worker.
 */

import { estimateNoise } from "./noise.js";
import { inTiles } from "./tiles.js";

/** Of the same tile by WebGPU and by WebAssembly: cosines on a GPU may be coarse. */
const LARGEST_DIFFERENCE = 0.25 / 255;

let ort = null;
let session = null; // of the network that was used last
let useGpu = Boolean(self.navigator.gpu);

self.onmessage = async ({ data }) => {
  try {
    await restore(data);
  } catch (error) {
    const memory = error instanceof RangeError || /alloc|memory|bad_alloc/i.test(String(error));
    const message = memory
      ? "This image needs more memory than the browser gives; make it smaller, or use the command."
      : `Restoring failed: ${error.message ?? error}`;
    self.postMessage({ type: "error", message });
  }
};

async function restore({ image, network, sigma }) {
  const began = performance.now();
  const { width, height, data } = image;
  const gray = isGray(data);
  const chosen = gray && network.gray ? network.gray : network;
  const { scale } = chosen.plan;
  let level = sigma;
  if (chosen.takesSigma) {
    level ??= estimateNoise(image, gray ? [0] : [0, 1, 2]);
    const share = sigma === null ? chosen.estimateShare : 1;
    self.postMessage({ type: "noise", sigma: level, estimated: sigma === null, share });
    level *= share;
  }

  const result = new Uint8ClampedArray(4 * scale * width * scale * height);
  const alpha = transparency(data);
  const passes = alpha === "varies" && !chosen.keepsAlpha ? 2 : 1;
  const progress = (pass) => (done, total) =>
    self.postMessage({ type: "tile", done: pass * total + done, total: passes * total });

  await inTiles(
    (tile, h, w) => run(chosen, tile, h, w, gray ? 1 : 3, level),
    image,
    gray ? [0] : [0, 1, 2],
    chosen.plan,
    gray
      ? (_, i, value) => result.fill(bytes(value), 4 * i, 4 * i + 3)
      : (c, i, value) => (result[4 * i + c] = bytes(value)),
    progress(0),
  );
  // Transparency is restored like a gray image of its own, and has no noise.
  if (passes === 2) {
    await inTiles(
      (tile, h, w) => run(chosen, tile, h, w, 1, chosen.takesSigma ? 0 : null),
      image,
      [3],
      chosen.plan,
      (_, i, value) => (result[4 * i + 3] = bytes(value)),
      progress(1),
    );
  } else {
    for (let i = 3; i < result.length; i += 4) result[i] = alpha === "varies" ? data[i] : data[3];
  }
  const answer = { width: scale * width, height: scale * height, data: result };
  const by = useGpu ? "WebGPU" : "WebAssembly";
  const seconds = (performance.now() - began) / 1000;
  self.postMessage({ type: "done", image: answer, network: chosen.name, by, seconds }, [result.buffer]);
}

const bytes = (value) => value * 255; // a Uint8ClampedArray rounds and clips

function isGray(data) {
  for (let i = 0; i < data.length; i += 4) {
    if (data[i] !== data[i + 1] || data[i] !== data[i + 2]) return false;
  }
  return true;
}

function transparency(data) {
  for (let i = 7; i < data.length; i += 4) if (data[i] !== data[3]) return "varies";
  return "constant";
}

/** A network's result for a tile of 1 or 3 channels, itself a network of 1 or 3. */
async function run(network, tile, height, width, channels, sigma) {
  await load(network);
  const repeated = channels === 1 && network.channels === 3;
  const input = repeated ? Float32Array.from({ length: 3 * tile.length }, (_, i) => tile[Math.floor(i / 3)]) : tile;
  const feeds = { input: [input, [1, height, width, network.channels]] };
  if (network.takesSigma) feeds.sigma = [Float32Array.of(sigma), [1, 1, 1, 1]];
  const { gpu } = session;
  let result = await infer(session, feeds).catch((error) => {
    if (gpu) return null; // e.g. out of its memory
    throw error;
  });
  if (gpu && !(session.checked && result)) {
    const expected = await inferOnce(await open(network, false), feeds);
    session.checked = true;
    if (!result || !(difference(result, expected) <= LARGEST_DIFFERENCE)) {
      useGpu = false; // from the next tile on
      result = expected;
    }
  }
  if (!repeated) return result;
  return Float32Array.from({ length: result.length / 3 }, (_, i) => (result[3 * i] + result[3 * i + 1] + result[3 * i + 2]) / 3);
}

async function infer({ session }, feeds) {
  const tensors = Object.fromEntries(
    Object.entries(feeds).map(([name, [values, shape]]) => [name, new ort.Tensor("float32", values, shape)]),
  );
  const { output } = await session.run(tensors);
  const values = await output.getData();
  output.dispose();
  return values;
}

async function inferOnce(opened, feeds) {
  try {
    return await infer(opened, feeds);
  } finally {
    await opened.session.release();
  }
}

function difference(a, b) {
  return a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i])), 0);
}

async function load(network) {
  if (session?.name === network.name && session.gpu === useGpu) return;
  await session?.session.release();
  session = null;
  if (ort === null) {
    if (useGpu && !(await self.navigator.gpu.requestAdapter().catch(() => null))) useGpu = false;
    ort = await import(useGpu ? "./ort/ort.webgpu.min.mjs" : "./ort/ort.wasm.min.mjs");
    ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(self.navigator.hardwareConcurrency, 8) : 1;
    ort.env.logLevel = "error";
  }
  if (useGpu) session = await open(network, true).catch(() => null);
  useGpu = session !== null;
  session ??= await open(network, false);
}

async function open(network, gpu) {
  const answer = await fetch(network.file);
  if (!answer.ok) throw new Error(`${network.file}: cannot be loaded (${answer.status})`);
  const providers = gpu ? ["webgpu", "wasm"] : ["wasm"];
  const options = { executionProviders: providers, logSeverityLevel: 3 };
  const created = await ort.InferenceSession.create(new Uint8Array(await answer.arrayBuffer()), options);
  return { session: created, name: network.name, gpu, checked: false };
}
