// What every part of the page needs: its state, its texts, and how to write them. Text is only ever textContent.

import { TEXTS } from "./texts.js";

/**
 * @import { Locale } from "bunri-api"
 * @import { Failure } from "./api.js"
 * @import { Run } from "./run.js"
 * @import { Chat } from "./chat.js"
 * @import { Scan } from "./scan.js"
 */

/** @typedef {keyof typeof TEXTS.ko} TextKey */
/** @typedef {"empty" | "no_link" | "no_words"} Notice */
/** @typedef {"scan" | "chat"} Tab */

/**
 * @typedef {object} State
 * @property {Locale} locale
 * @property {Tab} tab the one that is open
 * @property {Notice | null} notice what the form complains of
 * @property {{ file: File, url: string } | null} photo the file to upload; null when the link counts
 * @property {Scan | null} scan the last one
 * @property {Chat | null} chat the last one
 */

const LOCALE_KEY = "bunri.locale";

/** @type {State} */
export const state = { locale: rememberedLocale(), tab: "scan", notice: null, photo: null, scan: null, chat: null };

/**
 * The element with this id. Throws when index.html has none, or one of another class than `type`.
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} type
 * @returns {T}
 */
export function $(id, type = /** @type {new () => T} */ (HTMLElement)) {
  const element = document.getElementById(id);
  if (!(element instanceof type)) throw new Error(`index.html has no ${type.name} with the id ${id}`);
  return element;
}

/**
 * @param {string} selector
 * @returns {HTMLElement[]}
 */
export function all(selector) {
  return [...document.querySelectorAll(selector)].filter((element) => element instanceof HTMLElement);
}

/** @param {number} ms */
export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** @param {TextKey} key */
export const text = (key) => TEXTS[state.locale][key];

/** @returns {Locale} */
function rememberedLocale() {
  let remembered = null;
  try {
    remembered = localStorage.getItem(LOCALE_KEY);
  } catch {
    // Storage may be forbidden; then the browser's language decides.
  }
  if (remembered === "ko" || remembered === "en") return remembered;
  return navigator.language.toLowerCase().startsWith("ko") ? "ko" : "en";
}

/** @param {Locale} locale */
export function rememberLocale(locale) {
  state.locale = locale;
  try {
    localStorage.setItem(LOCALE_KEY, locale);
  } catch {
    // It holds until the page is left.
  }
}

/** @param {string} link */
export function isWebLink(link) {
  return URL.canParse(link) && /^https?:$/.test(new URL(link).protocol);
}

/**
 * @param {string} id
 * @param {string} value
 */
export function write(id, value) {
  if ($(id).textContent !== value) $(id).textContent = value; // Unchanged text is not announced again.
}

/**
 * @param {string} id
 * @param {string} tag
 * @param {string[]} values
 */
export function list(id, tag, values) {
  $(id).replaceChildren(...values.map((value) => Object.assign(document.createElement(tag), { textContent: value })));
}

/**
 * @param {string} id
 * @param {boolean} isShown
 */
export function show(id, isShown) {
  $(id).hidden = !isShown;
}

/**
 * Rounded down: 100 % would promise too much.
 * @param {number} share from 0 to 1
 */
export function inPercent(share) {
  const percent = Math.floor(share * 100 + 1e-9) / 100;
  return new Intl.NumberFormat(state.locale, { style: "percent" }).format(percent);
}

/** @param {number} seconds */
export function inSeconds(seconds) {
  const digits = seconds < 1 ? 2 : 1;
  return new Intl.NumberFormat(state.locale, {
    style: "unit",
    unit: "second",
    unitDisplay: "narrow",
    maximumFractionDigits: digits,
  }).format(seconds);
}

/** @param {number} size in bytes */
export function inBytes(size) {
  const unit = size < 1e6 ? "kilobyte" : "megabyte";
  const count = size < 1e6 ? Math.ceil(size / 1e3) : size / 1e6;
  return new Intl.NumberFormat(state.locale, { style: "unit", unit, maximumFractionDigits: 1 }).format(count);
}

/**
 * Show this notice at the form it belongs to, or none.
 * @param {Notice | null} notice
 */
export function notify(notice) {
  state.notice = notice;
  renderNotice();
}

export function renderNotice() {
  const { notice } = state;
  const isForChat = notice === "no_words";
  renderNoticeAt("notice", isForChat ? null : notice);
  renderNoticeAt("chat-notice", isForChat ? notice : null);
  $("image-url").setAttribute("aria-invalid", String(notice === "empty"));
  $("message").setAttribute("aria-invalid", String(isForChat));
}

/**
 * @param {string} id
 * @param {Notice | null} notice
 */
function renderNoticeAt(id, notice) {
  show(id, notice !== null);
  $(id).dataset.code = notice ?? "";
  write(id, notice ? text(`notice.${notice}`) : "");
}

/**
 * Show why a run failed. The ids in index.html begin with `part`.
 * @param {string} part
 * @param {Run} run
 * @param {Failure} failure
 * @param {TextKey} defaultTitle for a failed job: the API gives it a message and no title
 */
export function renderFailure(part, { locale }, failure, defaultTitle) {
  const { title, message, code, trace, fields } = failure;
  write(`${part}-title`, title ?? text(failure.key ?? defaultTitle));
  write(`${part}-message`, message ?? (failure.key ? text(`${failure.key}.message`) : ""));
  $(`${part}-message`).lang = message ? locale : state.locale;
  const mistakes = (fields ?? []).map(({ field, reason }) => `${field}: ${reason}`);
  list(`${part}-fields`, "li", mistakes);
  show(`${part}-fields`, mistakes.length > 0);
  $(part).dataset.code = code;
  write(`${part}-code`, code);
  write(`${part}-trace`, trace ?? "");
  show(`${part}-trace-part`, Boolean(trace));
}

/**
 * Which model answered, how long it took, and by which rules. The ids in index.html begin with `prefix`.
 * @param {string} prefix
 * @param {Run["details"]} details
 * @param {Run["job"]} job
 */
export function renderOrigin(prefix, details, job) {
  show(`${prefix}model-part`, Boolean(details?.model));
  show(`${prefix}time-part`, Boolean(details?.finished_at));
  write(`${prefix}model`, details?.model ?? "");
  write(`${prefix}time`, details?.finished_at ? inSeconds(details.finished_at - details.created_at) : "");
  write(`${prefix}version`, job?.pipeline_version ?? "");
}

/**
 * Bring keyboard and screen reader to how `section` ended, unless someone is typing.
 * @param {string} id
 * @param {string} section
 */
export function focusOn(id, section) {
  if (!document.activeElement?.matches("input, textarea")) $(id).focus({ preventScroll: true });
  reveal(section);
}

/**
 * On a phone the outcome is below the form.
 * @param {string} section
 */
export function reveal(section) {
  $(section).scrollIntoView({ block: "nearest" });
}
