// The one photo of the form, a file or a link: the one chosen last.

import { $, all, inBytes, isWebLink, notify, show, state, write } from "./page.js";

const PREVIEW_DELAY_MS = 400;

/** What is in the field for the link. */
export const link = () => $("image-url", HTMLInputElement).value.trim();

export function renderPhoto() {
  const file = state.photo?.file;
  show("chosen-part", Boolean(file));
  write("chosen-name", file?.name ?? "");
  write("chosen-size", file ? inBytes(file.size) : "");
}

export function preview() {
  const source = state.photo?.url ?? (isWebLink(link()) ? link() : null);
  const image = $("preview", HTMLImageElement);
  if (source === image.getAttribute("src")) return;
  show("preview", false);
  if (source) image.src = source;
  else image.removeAttribute("src");
}

/** Unfold the part of the question's form that has the photo: a photo that will be sent is to be seen. */
export function unfold() {
  if (state.photo || link()) $("attach", HTMLDetailsElement).open = true;
}

/** @param {File} file */
function choose(file) {
  discard();
  state.photo = { file, url: URL.createObjectURL(file) };
  $("image-url", HTMLInputElement).value = "";
  showChoice();
}

function discard() {
  if (state.photo) URL.revokeObjectURL(state.photo.url);
  state.photo = null;
}

function showChoice() {
  unfold();
  notify(null);
  renderPhoto();
  preview();
}

/**
 * A picture dragged from another page comes as a file and as a link, and the link may lead to another page.
 * @param {DataTransfer} transfer
 */
function drop(transfer) {
  const [file] = transfer.files;
  if (file) {
    choose(file);
    return;
  }
  const lines = (transfer.getData("text/uri-list") || transfer.getData("text/plain")).split(/\r?\n/);
  const dropped = lines.map((line) => line.trim()).find(isWebLink);
  if (!dropped) {
    notify("no_link");
    return;
  }
  discard();
  $("image-url", HTMLInputElement).value = dropped;
  showChoice();
}

/** @param {EventTarget | null} target */
const isForWords = (target) => target instanceof HTMLTextAreaElement;

export function listenForPhotos() {
  for (const id of ["file", "camera"]) listenToPicker($(id, HTMLInputElement));
  $("remove").addEventListener("click", () => {
    discard();
    showChoice();
    $("file").focus();
  });
  $("preview").addEventListener("load", () => show("preview", true));
  $("preview").addEventListener("error", () => show("preview", false));
  listenToLink();
  document.addEventListener("paste", paste);
  listenForDrops();
}

/** @param {HTMLInputElement} picker */
function listenToPicker(picker) {
  picker.addEventListener("change", () => {
    const file = picker.files?.[0];
    picker.value = ""; // So that the same file can be chosen again.
    if (file) choose(file);
  });
}

function listenToLink() {
  let typing = 0;
  $("image-url").addEventListener("input", () => {
    if (link()) discard();
    notify(null);
    renderPhoto();
    clearTimeout(typing);
    typing = setTimeout(preview, PREVIEW_DELAY_MS);
  });
}

/** @param {ClipboardEvent} event */
function paste(event) {
  const file = event.clipboardData?.files[0];
  // Office programs copy a text with its picture.
  if (!file || (isForWords(event.target) && event.clipboardData?.getData("text/plain"))) return;
  event.preventDefault();
  choose(file);
}

/** On the whole document: a file dropped beside the form must not replace the page. */
function listenForDrops() {
  document.addEventListener("dragover", (event) => {
    if (isForQuestion(event)) return;
    event.preventDefault();
    markTargets(true);
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) markTargets(false);
  });
  document.addEventListener("drop", (event) => {
    markTargets(false);
    if (isForQuestion(event) || !event.dataTransfer) return;
    event.preventDefault();
    drop(event.dataTransfer);
  });
}

/**
 * Text dragged into the question stays text.
 * @param {DragEvent} event
 */
function isForQuestion({ target, dataTransfer }) {
  return isForWords(target) && !dataTransfer?.types.includes("Files");
}

/** @param {boolean} isTarget */
function markTargets(isTarget) {
  for (const form of all("form")) form.classList.toggle("is-target", isTarget);
}
