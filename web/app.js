/** The page: an image is chosen, restored by the worker, looked at, and saved. */

const MAX_PIXELS = 50e6; // of the result: its bytes and those of two canvases have to fit

const $ = (id) => document.getElementById(id);
const form = $("controls");

const state = {
  networks: null,
  name: "", // of the file
  before: null, // { width, height, data } as chosen
  after: null,
  worker: null,
  choices: 0, // to tell an image that was chosen meanwhile
};

start();

async function start() {
  try {
    state.networks = (await (await fetch("networks.json")).json()).tasks;
  } catch {
    say("The networks could not be loaded: reload the page.", true);
    return;
  }
  $("file").addEventListener("change", () => choose($("file").files[0]));
  $("example").addEventListener("click", chooseExample);
  form.addEventListener("change", updateControls);
  $("sigma").addEventListener("input", updateControls);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    restore();
  });
  $("cancel").addEventListener("click", cancel);
  $("divider").addEventListener("input", moveDivider);
  $("actual").addEventListener("change", updateView);
  $("save").addEventListener("click", save);
  for (const kind of ["dragover", "dragleave", "drop"]) document.addEventListener(kind, drag);
  document.addEventListener("paste", (event) => choose(event.clipboardData?.files[0]));
  new ResizeObserver(updateView).observe($("frame"));
  updateControls();
  document.body.dataset.ready = "true";
  // Keeps the page for when there is no network. It fails where the page is not served securely.
  navigator.serviceWorker?.register("sw.js").catch(() => {});
}

function say(message, isError = false) {
  $("status").textContent = message;
  $("status").classList.toggle("error", isError);
}

/* ---- choosing ---- */

function drag(event) {
  if (![...(event.dataTransfer?.types ?? [])].includes("Files")) return;
  event.preventDefault();
  $("drop").classList.toggle("over", event.type === "dragover");
  if (event.type === "drop") choose(event.dataTransfer.files[0]);
}

async function chooseExample() {
  const answer = await fetch("example.png");
  choose(new File([await answer.blob()], "example.png", { type: "image/png" }));
  form.elements.task.value = "denoise";
  updateControls();
}

async function choose(file) {
  if (!file) return;
  cancel();
  const choice = ++state.choices;
  const { name } = file;
  try {
    const image = await decode(file);
    if (choice !== state.choices) return;
    Object.assign(state, { name, before: image, after: null });
    show();
    say(`${name}: ${image.width} × ${image.height} pixels.`);
  } catch (error) {
    if (choice === state.choices) say(`${name}: ${error.message}`, true);
  }
  $("file").value = ""; // so that the same file may be chosen again
  updateControls();
}

/** The pixels of a file, in sRGB and turned as its EXIF says: what the browser would show. */
async function decode(file) {
  if (file.size === 0) throw new Error("the file is empty; choose another one.");
  const url = URL.createObjectURL(file);
  try {
    const picture = new Image();
    await new Promise((resolve, reject) => {
      picture.onload = resolve;
      picture.onerror = () => reject(new Error("no image that this browser reads; PNG, JPEG, WebP, AVIF and GIF are."));
      picture.src = url;
    });
    // The size is known before anything is decoded.
    const { naturalWidth: width, naturalHeight: height } = picture;
    if (!(width && height)) throw new Error("the image has no size of its own; choose another one.");
    if (width * height > MAX_PIXELS) throw new Error(tooLarge(width, height, 1));
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    context.drawImage(picture, 0, 0);
    return { width, height, data: context.getImageData(0, 0, width, height).data };
  } finally {
    URL.revokeObjectURL(url);
  }
}

function tooLarge(width, height, scale) {
  const most = Math.floor(MAX_PIXELS / scale ** 2 / 1e6);
  const what = scale > 1 ? ` to enlarge by ${scale}` : "";
  return `${width} × ${height} pixels are more than this page takes${what} (${most} million). Make the image smaller, or use the command: converse-jax restore.`;
}

/* ---- restoring ---- */

function updateControls() {
  const { before, worker } = state;
  const network = state.networks[form.elements.task.value];
  const auto = form.elements.auto.checked;
  $("level").hidden = !network.takesSigma;
  $("sigma").disabled = auto;
  $("sigma").max = network.maxSigma ?? 50;
  $("sigma-value").textContent = auto ? "auto" : $("sigma").value;
  $("restore").disabled = !before || Boolean(worker?.busy);
  $("cancel").hidden = !worker?.busy;
  $("working").hidden = !worker?.busy;
  $("save").disabled = !state.after;
}

function restore() {
  const { before } = state;
  const network = state.networks[form.elements.task.value];
  const { scale } = network.plan;
  if (before.width * before.height * scale ** 2 > MAX_PIXELS) {
    say(`${state.name}: ${tooLarge(before.width, before.height, scale)}`, true);
    return;
  }
  state.after = null;
  show();
  if (!state.worker) state.worker = new Worker("worker.js", { type: "module" });
  const { worker } = state;
  worker.busy = true;
  worker.onmessage = ({ data }) => onAnswer(data);
  worker.onerror = () => onAnswer({ type: "error", message: "The worker could not be started: reload the page." });
  $("progress").removeAttribute("value");
  $("tiles").textContent = "";
  say("Loading the network …");
  $("status").scrollIntoView({ block: "nearest" }); // on a phone it lies below
  const sigma = network.takesSigma && !form.elements.auto.checked ? $("sigma").value / 255 : null;
  worker.postMessage({ image: before, network, sigma });
  updateControls();
}

let noise = "";

function onAnswer(answer) {
  if (!state.worker) return; // cancelled meanwhile
  if (answer.type === "noise") {
    noise = `, noise of ${(255 * answer.sigma).toFixed(1)} (of 255)${answer.estimated ? ", estimated" : ""}${answer.share === 1 ? "" : `; the network is told ${answer.share} of it`}`;
    return;
  }
  if (answer.type === "tile") {
    const { done, total } = answer;
    $("progress").max = total;
    if (done) $("progress").value = done;
    else say("Restoring …"); // once: a screen reader has the bar
    $("tiles").textContent = `tile ${Math.min(done + 1, total)} of ${total}`;
    return;
  }
  state.worker.busy = false;
  if (answer.type === "error") {
    end();
    say(answer.message, true);
  } else {
    state.after = answer.image;
    show();
    const { width, height } = answer.image;
    say(`Restored by ${answer.network}${noise}: ${width} × ${height} pixels in ${answer.seconds.toFixed(1)} s (${answer.by}).`);
  }
  noise = "";
  updateControls();
}

function cancel() {
  if (!state.worker?.busy) return;
  end();
  say("Cancelled.");
  updateControls();
}

/** A worker cannot be interrupted, only ended; the next restoration starts another. */
function end() {
  state.worker?.terminate();
  state.worker = null;
}

/* ---- looking ---- */

function show() {
  const { before, after } = state;
  $("view").hidden = !before;
  $("intro").hidden = Boolean(before);
  if (!before) return;
  draw($("before"), before);
  const large = after ?? before;
  $("stack").style.aspectRatio = `${large.width} / ${large.height}`;
  $("after").hidden = $("divider").hidden = $("handle").hidden = $("labels").hidden = !after;
  if (after) draw($("after"), after);
  else draw($("after"), { width: 1, height: 1, data: new Uint8ClampedArray(4) });
  $("divider").value = 50;
  moveDivider();
  updateView();
}

function draw(canvas, { width, height, data }) {
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").putImageData(new ImageData(data, width, height), 0, 0);
}

function moveDivider() {
  const share = $("divider").value;
  $("after").style.clipPath = `inset(0 0 0 ${share}%)`;
  $("handle").style.left = `${share}%`;
  $("divider").setAttribute("aria-valuetext", `${share} percent original, the rest restored`);
}

/** Fits the image into the page, or shows each of its pixels. */
function updateView() {
  if (!state.before) return;
  const { width, height } = state.after ?? state.before;
  const room = $("frame").clientWidth;
  const fitted = Math.min(room, (0.75 * innerHeight * width) / height, 2 * width);
  const shown = $("actual").checked ? width / devicePixelRatio : fitted;
  $("stack").style.width = `${shown}px`;
}

function save() {
  $("after").toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${state.name.replace(/\.[^.]*$/, "")}-restored.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  }, "image/png");
}
