// What every part of the page needs: its state, its texts, and how to write them. Text is only ever textContent.

import { TEXTS } from "./texts.js";

const LOCALE_KEY = "bunri.locale";

// `photo` is the file to upload, and null when the link counts. `scan` and `chat` are the last of each.
export const state = { locale: rememberedLocale(), tab: "scan", notice: null, photo: null, scan: null, chat: null };

export const $ = (id) => document.getElementById(id);
export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
export const text = (key) => TEXTS[state.locale][key];

function rememberedLocale() {
  let remembered = null;
  try {
    remembered = localStorage.getItem(LOCALE_KEY);
  } catch {
    // Storage may be forbidden; then the browser's language decides.
  }
  if (Object.hasOwn(TEXTS, remembered)) return remembered;
  return navigator.language.toLowerCase().startsWith("ko") ? "ko" : "en";
}

export function rememberLocale(locale) {
  state.locale = locale;
  try {
    localStorage.setItem(LOCALE_KEY, locale);
  } catch {
    // It holds until the page is left.
  }
}

export function isWebLink(link) {
  return URL.canParse(link) && /^https?:$/.test(new URL(link).protocol);
}

export function write(id, value) {
  if ($(id).textContent !== value) $(id).textContent = value; // Unchanged text is not announced again.
}

export function list(id, tag, values) {
  $(id).replaceChildren(
    ...values.map((value) => Object.assign(document.createElement(tag), { textContent: value })),
  );
}

export function show(id, isShown) {
  $(id).hidden = !isShown;
}

/** Rounded down: 100 % would promise too much. */
export function inPercent(share) {
  const percent = Math.floor(share * 100 + 1e-9) / 100;
  return new Intl.NumberFormat(state.locale, { style: "percent" }).format(percent);
}

export function inSeconds(seconds) {
  const digits = seconds < 1 ? 2 : 1;
  return new Intl.NumberFormat(state.locale, {
    style: "unit",
    unit: "second",
    unitDisplay: "narrow",
    maximumFractionDigits: digits,
  }).format(seconds);
}

export function inBytes(size) {
  const [unit, count] = size < 1e6 ? ["kilobyte", Math.ceil(size / 1e3)] : ["megabyte", size / 1e6];
  return new Intl.NumberFormat(state.locale, { style: "unit", unit, maximumFractionDigits: 1 }).format(count);
}

/** Ids begin with `part`. What the API gave no title has that of `title`. */
export function renderFailure(part, { locale, failure }, title) {
  const { key, title: given, message, code, trace, fields } = failure;
  write(`${part}-title`, given ?? text(key === "failure" ? title : key));
  write(`${part}-message`, message ?? text(`${key}.message`));
  $(`${part}-message`).lang = message ? locale : state.locale;
  list(`${part}-fields`, "li", (fields ?? []).map(({ field, reason }) => `${field}: ${reason}`));
  show(`${part}-fields`, Boolean(fields?.length));
  $(part).dataset.code = code;
  write(`${part}-code`, code);
  write(`${part}-trace`, trace ?? "");
  show(`${part}-trace-part`, Boolean(trace));
}

/** Bring keyboard and screen reader to how `section` ended, unless someone is typing. */
export function focusOn(id, section) {
  if (!document.activeElement?.matches("input, textarea")) $(id).focus({ preventScroll: true });
  reveal(section);
}

/** On a phone the outcome is below the form. */
export function reveal(section) {
  $(section).scrollIntoView({ block: "nearest" });
}
