// One question in words, perhaps with a photo, and its answer, which is shown while it is written.
// Each question stands alone, so the last one is all there is to show.

import { decoded } from "./api.js";
import { renderChat } from "./chat-card.js";
import { focusOn, state } from "./page.js";
import { createRun } from "./run.js";

/**
 * @import { TokenView } from "bunri-api"
 * @import { Kind, Run, RunRequest } from "./run.js"
 */

/**
 * @typedef {object} OwnOfChat
 * @property {string} message the question
 * @property {string} text the answer, as far as it is written
 */

/** @typedef {Run & OwnOfChat} Chat */

/** @type {Kind<OwnOfChat>} */
const CHAT = {
  path: "/api/v1/chat/messages",
  uploads: "/api/v1/images/chat",
  headers: { Prefer: "respond-async" },
  stages: ["queued", "fetch", "vision", "rule", "answer"],
  section: "chat",
  own: ({ message = "" }) => ({ message, text: "" }),
  makeCurrent: (chat) => {
    state.chat = chat;
  },
  render: renderChat,
  onUploaded: () => {},
  onAccepted: () => {},
  onStage: (chat, { stage }) => {
    chat.stage = stage;
  },
  onToken: appendDelta,
  onEnd: settle,
  focus: ({ failure }) => {
    if (failure) focusOn("chat-failure-title", "chat");
  },
};

/**
 * @param {RunRequest} request
 * @param {File} [file]
 */
export function submitChat(request, file) {
  createRun(CHAT, request, { file }).submit();
}

/**
 * Each piece is escaped by itself. After a reconnect, or when a job is tried again, the text begins anew.
 * @param {Chat} chat
 * @param {TokenView} delta
 */
function appendDelta(chat, { text, restart }) {
  chat.text = (restart ? "" : chat.text) + decoded(text);
}

/**
 * The whole answer takes the place of its pieces. Half an answer may be worse than none.
 * @param {Chat} chat
 */
function settle(chat) {
  const answer = chat.outcome === "completed" ? chat.result?.final_answer.user_answer : "";
  chat.text = decoded(answer ?? "");
}
