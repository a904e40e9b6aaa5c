// Nothing that changes what people are served happens without this dialog.

import { el } from "/web/dom.js";

const dialog = document.getElementById("confirm");

/**
 * Say what will happen and ask whether to go on. Resolves to the reason that was given ("": none), or to null.
 * @param {{title: string, says: string[], button: string, reason?: "optional"|"required", danger?: boolean}} question
 */
export function confirmed({ title, says, button, reason, danger = false }) {
  const field =
    reason &&
    el("input", {
      id: "reason",
      type: "text",
      maxlength: "1000",
      autocomplete: "off",
      required: reason === "required",
    });
  const label =
    reason &&
    el(
      "label",
      { for: "reason" },
      reason === "required" ? "Reason (required; kept with the version)" : "Reason (kept with the version)",
    );
  const cancel = el("button", { type: "button", onclick: () => dialog.close("no") }, "Cancel");
  const form = el(
    "form",
    {
      class: "stack",
      onsubmit: (event) => {
        event.preventDefault();
        dialog.close("yes");
      },
    },
    el("h2", { id: "confirm-title" }, title),
    ...says.map((text) => el("p", {}, text)),
    label,
    field,
    el("div", { class: "cluster actions" }, cancel, el("button", { class: danger ? "danger" : "primary" }, button)),
  );
  dialog.replaceChildren(form);
  dialog.returnValue = "no"; // What Escape leaves as it is.
  dialog.showModal();
  (field ?? cancel).focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes" ? (field?.value.trim() ?? "") : null), {
      once: true,
    });
  });
}
