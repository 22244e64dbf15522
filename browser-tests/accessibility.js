// Runs inside a page and returns what is wrong with it, a sentence each: the part of WCAG 2.2 (level AA)
// that a program can decide. The number behind each fault is its success criterion.

const faults = [];
const fault = (criterion, element, what) => faults.push(`${criterion} ${describe(element)}: ${what}`);
const describe = (element) => {
  const id = element.id ? `#${element.id}` : "";
  const text = element.textContent.trim().replace(/\s+/g, " ").slice(0, 30);
  return `<${element.localName}${id}>${text ? ` "${text}"` : ""}`;
};
const all = (selector) => [...document.querySelectorAll(selector)];
const visible = (element) =>
  element.checkVisibility({ visibilityProperty: true }) && !element.closest(".unseen, .skip:not(:focus)");

// Language, title, zoom.
if (!document.documentElement.lang) fault("3.1.1", document.documentElement, "no language");
if (!document.title.trim()) fault("2.4.2", document.documentElement, "no title");
const viewport = document.querySelector("meta[name=viewport]")?.content ?? "";
if (!viewport.includes("width=device-width")) fault("1.4.10", document.head, "no viewport for small screens");
if (/user-scalable=no|maximum-scale/.test(viewport)) fault("1.4.4", document.head, "zooming is forbidden");
// A phone zooms out until a page that is too wide fits its window, but its screen stays what it is.
if (document.documentElement.scrollWidth > screen.width) {
  fault("1.4.10", document.documentElement, `${document.documentElement.scrollWidth} wide on ${screen.width}`);
}

// Structure.
if (all("main").length !== 1) fault("1.3.1", document.body, `${all("main").length} main landmarks`);
if (all("h1").length !== 1) fault("1.3.1", document.body, `${all("h1").length} headings of the first level`);
let level = 0;
for (const heading of all("h1, h2, h3, h4, h5, h6")) {
  const next = Number(heading.localName[1]);
  if (next > level + 1) fault("1.3.1", heading, `level ${next} follows level ${level}`);
  level = next;
}
for (const nav of all("nav")) {
  if (all("nav").length > 1 && !nav.ariaLabel && !nav.hasAttribute("aria-labelledby")) fault("1.3.1", nav, "no name");
}
const ids = all("[id]").map((element) => element.id);
for (const id of new Set(ids.filter((id, at) => ids.indexOf(id) !== at))) {
  fault("4.1.1", document.getElementById(id), "its id is there twice");
}
for (const element of all("[aria-labelledby], [aria-describedby], label[for]")) {
  const named = ["aria-labelledby", "aria-describedby", "for"].map((name) => element.getAttribute(name) ?? "").join(" ");
  for (const id of named.split(/\s+/).filter(Boolean)) {
    if (!document.getElementById(id)) fault("1.3.1", element, `points at #${id}, which is not there`);
  }
}
for (const header of all("th")) if (!header.scope) fault("1.3.1", header, "a header cell of neither row nor column");
for (const link of all('a[href^="#"]')) {
  if (!document.querySelector(link.hash)) fault("2.4.1", link, "leads nowhere");
}

// Names. (What assistive technology hears is asked of the browser itself, beside this script.)
for (const image of all("img")) {
  if (!image.hasAttribute("alt")) fault("1.1.1", image, "no alt");
  if (!image.complete || image.naturalWidth === 0) fault("1.1.1", image, `${image.src} did not load`);
}
for (const control of all("select, input, textarea")) {
  if (visible(control) && control.labels.length === 0 && !control.ariaLabel) fault("3.3.2", control, "no label");
}

// Size of what is pressed. Links in running text are excepted there too.
for (const control of all("button, select, input")) {
  const box = control.getBoundingClientRect();
  if (visible(control) && Math.min(box.width, box.height) < 24) fault("2.5.8", control, `${box.width}×${box.height}`);
}

// Contrast of text, and of the edges of controls.
const canvas = document.createElement("canvas");
canvas.width = canvas.height = 1;
const painter = canvas.getContext("2d", { willReadFrequently: true });
const painted = (...layers) => {
  painter.clearRect(0, 0, 1, 1);
  for (const layer of layers) {
    painter.fillStyle = layer;
    painter.fillRect(0, 0, 1, 1);
  }
  return [...painter.getImageData(0, 0, 1, 1).data];
};
// What a page that paints no ground of its own lies on, in the scheme that it has said it can do.
const probe = document.body.appendChild(document.createElement("div"));
probe.style.backgroundColor = "Canvas";
const canvasColour = getComputedStyle(probe).backgroundColor;
probe.remove();
const ground = (element) => {
  const layers = [];
  for (let at = element; at; at = at.parentElement) layers.unshift(getComputedStyle(at).backgroundColor);
  return [canvasColour, ...layers];
};
const luminance = ([red, green, blue]) => {
  const linear = [red, green, blue].map((byte) => {
    const share = byte / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
};
const contrast = (colour, layers) => {
  const [one, other] = [luminance(painted(...layers, colour)), luminance(painted(...layers))];
  return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
};
let measured = 0;
for (const element of all("body *")) {
  const hasText = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
  if (!hasText || !visible(element) || element.disabled || element.matches("script, style, noscript, option")) continue;
  const style = getComputedStyle(element);
  const size = parseFloat(style.fontSize);
  const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
  const ratio = contrast(style.color, ground(element));
  measured += 1;
  if (ratio < (large ? 3 : 4.5)) fault("1.4.3", element, `contrast ${ratio.toFixed(2)}`);
}
for (const control of all("button, select, input")) {
  if (!visible(control)) continue;
  const outside = ground(control.parentElement);
  const style = getComputedStyle(control);
  const ratio = Math.max(contrast(style.borderTopColor, outside), contrast(style.backgroundColor, outside));
  if (ratio < 3) fault("1.4.11", control, `its edge has contrast ${ratio.toFixed(2)}`);
}
if (measured === 0) fault("1.4.3", document.body, "no text was found to measure");

return faults;
