// The two forms: for a scan, and for a question in words.

import { submitChat } from "./chat.js";
import { $, all, notify, state } from "./page.js";
import { link, preview } from "./photo.js";
import { isBusy } from "./run.js";
import { submitScan } from "./scan.js";

/**
 * @import { Notice } from "./page.js"
 */

const message = $("message", HTMLTextAreaElement);
const question = $("question", HTMLTextAreaElement);

export function listenToForms() {
  onSubmit("form", scan);
  onSubmit("ask", ask);
  message.addEventListener("input", () => {
    if (state.notice) notify(null);
  });
  message.addEventListener("keydown", (event) => {
    // While a syllable is being composed, Enter only ends it.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    $("ask", HTMLFormElement).requestSubmit();
  });
  for (const example of all("[data-example]")) {
    example.addEventListener("click", () => {
      message.value = example.textContent ?? "";
      message.focus();
    });
  }
}

/**
 * @param {string} id
 * @param {() => void} submit
 */
function onSubmit(id, submit) {
  $(id).addEventListener("submit", (event) => {
    event.preventDefault();
    preview();
    submit();
  });
}

function scan() {
  if (isBusy(state.scan)) return;
  const { locale, photo } = state;
  const image_url = link();
  const user_input = question.value.trim();
  const request = { locale, ...(user_input && { user_input }) };
  if (photo) submitScan(request, photo.file);
  else if (image_url) submitScan({ image_url, ...request });
  else complain("empty", $("image-url"));
}

function ask() {
  if (isBusy(state.chat)) return;
  const { locale, photo } = state;
  const image_url = photo ? "" : link();
  const words = message.value.trim();
  if (words || image_url || photo) submitChat({ message: words, ...(image_url && { image_url }), locale }, photo?.file);
  else complain("no_words", message);
}

/**
 * @param {Notice} notice
 * @param {HTMLElement} field where it can be mended
 */
function complain(notice, field) {
  notify(notice);
  field.focus();
}
