// The playground: what is on the page besides its forms and their results, and where its parts come together.
// What happens changes `state`; the render functions alone write to the page.

import { renderChat } from "./chat-card.js";
import { listenToForms } from "./form.js";
import { $, all, rememberLocale, renderNotice, show, state, text } from "./page.js";
import { listenForPhotos, preview, renderPhoto, unfold } from "./photo.js";
import { renderScan } from "./scan-card.js";

/**
 * @import { Locale } from "bunri-api"
 * @import { Tab, TextKey } from "./page.js"
 */

/** @type {readonly [Tab, Tab]} */
const TABS = ["scan", "chat"];

/**
 * Where a text of the page goes, by the attribute of index.html that names it.
 * @type {Record<string, (element: HTMLElement, value: string) => void>}
 */
const TEXT_TARGETS = {
  text: (element, value) => element.replaceChildren(value),
  placeholder: (element, value) => element.setAttribute("placeholder", value),
  label: (element, value) => element.setAttribute("aria-label", value),
  alt: (element, value) => element.setAttribute("alt", value),
};

function render() {
  renderTexts();
  renderTabs();
  renderNotice();
  renderPhoto();
  renderScan();
  renderChat();
}

function renderTexts() {
  document.documentElement.lang = state.locale;
  document.title = text("page.title");
  for (const [name, assign] of Object.entries(TEXT_TARGETS)) {
    for (const element of all(`[data-${name}]`)) assign(element, text(/** @type {TextKey} */ (element.dataset[name])));
  }
  for (const button of all("[data-locale]")) {
    button.setAttribute("aria-pressed", String(button.dataset.locale === state.locale));
  }
}

/** There is one place to choose a photo, which goes along to the tab that is shown. */
function renderTabs() {
  for (const tab of TABS) {
    const isShown = tab === state.tab;
    $(`tab-${tab}`).setAttribute("aria-selected", String(isShown));
    $(`tab-${tab}`).tabIndex = isShown ? 0 : -1;
    show(`panel-${tab}`, isShown);
  }
  const slot = $(`slot-${state.tab}`);
  if (!slot.contains($("photo-part"))) slot.append($("photo-part"));
}

/** @param {Locale} locale */
function setLocale(locale) {
  rememberLocale(locale);
  render();
}

/** `#chat` in the address opens that tab, so that it can be linked to. */
function openTabOfAddress() {
  state.tab = TABS.find((tab) => location.hash === `#${tab}`) ?? TABS[0];
  state.notice = null;
  unfold();
  render();
}

/** @param {Tab} tab */
function chooseTab(tab) {
  history.replaceState(null, "", tab === TABS[0] ? location.pathname : `#${tab}`);
  openTabOfAddress();
}

/**
 * As the pattern of tabs has it: the arrows go round, and what they reach is shown.
 * @param {KeyboardEvent} event
 */
function moveTab(event) {
  const at = TABS.indexOf(state.tab);
  const to = new Map([
    ["ArrowRight", at + 1],
    ["ArrowLeft", at - 1],
    ["Home", 0],
    ["End", -1],
  ]).get(event.key);
  if (to === undefined) return;
  event.preventDefault();
  chooseTab(TABS.at(to % TABS.length) ?? TABS[0]);
  $(`tab-${state.tab}`).focus();
}

listenToForms();
listenForPhotos();
$("cancel").addEventListener("click", () => state.scan?.cancel());
$("retry").addEventListener("click", () => state.scan?.retry?.());
$("chat-cancel").addEventListener("click", () => state.chat?.cancel());
$("chat-retry").addEventListener("click", () => state.chat?.retry?.());
for (const tab of TABS) $(`tab-${tab}`).addEventListener("click", () => chooseTab(tab));
$("tabs").addEventListener("keydown", moveTab);
window.addEventListener("hashchange", openTabOfAddress);
for (const button of all("[data-locale]")) {
  button.addEventListener("click", () => setLocale(button.dataset.locale === "ko" ? "ko" : "en"));
}

openTabOfAddress();
preview(); // A browser may have kept the link over a reload.
