// Keyboard shortcuts for auditing. Every page works without them: links lead on, Enter saves, Tab moves.
"use strict";

const NEXT = ["j", "n"];
const PREVIOUS = ["k", "p"];

// Number fields refuse letters, so letters remain shortcuts there.
function types(element) {
  return element.matches("select, textarea, input:not([type=number], [type=checkbox], [type=radio])");
}

function step(direction) {
  const link = document.querySelector(direction > 0 ? "a[rel=next].go, button.go" : "a[rel=prev].go");
  if (link) {
    link.click();
    return;
  }
  const rows = [...document.querySelectorAll(".bins h3 a")];
  const here = rows.indexOf(document.activeElement);
  const row = rows[here < 0 ? (direction > 0 ? 0 : rows.length - 1) : here + direction];
  row?.focus();
}

function enter(digit) {
  const field = document.querySelector("input[name=quantity]");
  if (!field || field === document.activeElement) {
    return false;
  }
  field.value = digit;
  field.focus();
  return true;
}

// "a" for at least, and so on: the form says which. An answer without a number clears what was typed.
function choose(key) {
  const choice = document.querySelector(`input[name=answer][data-key="${key}"]`);
  if (!choice) {
    return false;
  }
  const field = document.querySelector("input[name=quantity]");
  choice.checked = true;
  if (["count", "at_least"].includes(choice.value)) {
    field.focus();
  } else {
    field.value = "";
    choice.focus();
  }
  return true;
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing || types(event.target)) {
    return;
  }
  if (NEXT.includes(event.key)) {
    step(1);
  } else if (PREVIOUS.includes(event.key)) {
    step(-1);
  } else if (!(/^[0-9]$/.test(event.key) ? enter(event.key) : /^[a-z]$/.test(event.key) && choose(event.key))) {
    return;
  }
  event.preventDefault();
});
