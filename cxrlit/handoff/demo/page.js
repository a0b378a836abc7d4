"use strict";

const find = (id) => document.getElementById(id);
const [file, said, seen, findings] = ["file", "said", "seen", "findings"].map(find);
const drop = file.parentElement;
const VERDICTS = new Map([[true, "present"], [false, "below threshold"], [null, "no threshold"]]);

// The request under way: what is chosen next takes its place, so that no answer comes to the name of another file.
let asking = new AbortController();

// Names and reasons are text, without what is not seen or turns it around.
const clean = (text) => text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (one) => `\\u{${one.codePointAt(0).toString(16)}}`);

function say(name, text, refused = false) {
  const who = document.createElement("b");
  const inner = who.appendChild(document.createElement("bdi"));
  inner.textContent = clean(name);
  said.replaceChildren(who, `: ${clean(text)}`);
  said.classList.toggle("refused", refused);
}

// What was found in one file does not stand beside the name of the next, not even until that has its result.
function forget() {
  asking.abort();
  asking = new AbortController();
  seen.replaceChildren();
  findings.replaceChildren();
  return asking.signal;
}

async function ask(name, blob) {
  const signal = forget();
  if (blob.size > Number(file.dataset.maxBytes)) {
    say(name, `cannot be used: larger than ${file.dataset.maxMib} MiB`, true);
    return;
  }
  say(name, "waiting for its result …");
  try {
    const response = await fetch("predict", {
      method: "POST", headers: { "Content-Type": "application/octet-stream" }, body: blob, signal,
    });
    const answer = await response.json();
    if (signal.aborted) return;
    if (response.ok) show(name, answer);
    else say(name, `cannot be used: ${answer.error}`, true);
  } catch {
    if (!signal.aborted) say(name, "there is no answer: is it a file, and does cxrlit demo still run?", true);
  }
}

function show(name, answer) {
  seen.replaceChildren(fillPicture(answer));
  findings.replaceChildren(fillFindings(answer));
  const present = answer.findings.filter((one) => one.present).map((one) => one.label).join(", ");
  const found = present ? `present: ${present}` : "nothing at or above its threshold, which does not mean healthy";
  const doubt = answer.warnings.length ? " This may be no radiograph that the model was made for." : "";
  say(name, `${found}.${doubt}`);
}

function fillPicture(answer) {
  const part = find("seen-template").content.cloneNode(true);
  const [heatmap, meaning] = [".heatmap", "#meaning"].map((one) => part.querySelector(one));
  part.querySelector(".radiograph").src = answer.image;
  const [nowhere, ...choices] = part.querySelectorAll("input");
  nowhere.addEventListener("change", () => {
    heatmap.hidden = true;
    meaning.textContent = "";
  });
  choices.forEach((choice, i) => choice.addEventListener("change", () => {
    const one = answer.findings[i];
    const label = clean(one.label);
    heatmap.hidden = !one.heatmap;
    if (one.heatmap) heatmap.src = one.heatmap;
    heatmap.alt = `Heatmap of ${label} over the radiograph`;
    meaning.textContent = one.heatmap
      ? ` Bright: what speaks most for ${label}, whether it is there or not.`
      : ` The heatmap shows positive evidence alone, and at its resolution there is none for ${label}.`;
  }));
  return part;
}

function fillFindings(answer) {
  const part = find("findings-template").content.cloneNode(true);
  const concerns = part.querySelector(".concerns");
  if (!answer.warnings.length) concerns.remove();
  for (const warning of answer.warnings)
    concerns.querySelector("ul").appendChild(document.createElement("li")).textContent = clean(warning);
  const [bars, rows] = [".bars li", "tbody tr"].map((one) => part.querySelectorAll(one));
  answer.findings.forEach(({ prob, calibrated, threshold, present, digits }, i) => {
    const verdict = VERDICTS.get(present);
    const [bar, tick] = [".bar", ".tick"].map((one) => bars[i].querySelector(one));
    bars[i].classList.toggle("present", present === true);
    bars[i].querySelector(".verdict").textContent = `${calibrated.toFixed(digits)}, ${verdict}`;
    bar.style.width = `${100 * calibrated}%`;
    if (threshold === null) tick.remove();
    else tick.style.left = `${100 * threshold}%`;
    const shown = [prob, calibrated, threshold].map((one) => (one === null ? "–" : one.toFixed(digits)));
    [...shown, verdict].forEach((text, j) => { rows[i].querySelectorAll("td")[j].textContent = text; });
  });
  return part;
}

function take(files) {
  if (files.length === 1) {
    ask(files[0].name, files[0]);
  } else if (files.length) {
    forget();
    say(`${files.length} files`, "choose one file at a time", true);
  }
}

file.addEventListener("change", () => {
  take([...file.files]);
  file.value = ""; // so that the same file can be chosen again
});

for (const button of document.querySelectorAll("#examples button"))
  button.addEventListener("click", () => {
    const coded = atob(button.querySelector("img").src.split(",")[1]);
    ask(button.textContent.trim(), new Blob([Uint8Array.from(coded, (one) => one.charCodeAt(0))]));
  });

// A file that misses its place would be opened in place of the page.
for (const kind of ["dragover", "dragleave", "drop"])
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
    if (kind === "drop") take([...event.dataTransfer.files]);
  });
