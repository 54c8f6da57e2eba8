// Elements made by hand. All text becomes text: nothing that came from the wire is ever markup.

const SVG = "http://www.w3.org/2000/svg";

/** Most characters of a text that are shown in one place. */
const LONGEST = 600;

// What steers, hides or turns text: controls, marks of direction, separators, characters without width.
const HIDDEN =
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]/gu;

const NAMED = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

/** A text as it may be shown: what could hide or turn it is named, what is too long is cut. */
export function shown(text) {
  const cut = text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text;
  return cut.replace(HIDDEN, (character) => NAMED[character] ?? `\\u{${character.codePointAt(0).toString(16)}}`);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : shown(String(value)));
  }
  for (const child of children.flat()) {
    if (child === undefined || child === null || child === false) continue;
    node.append(child instanceof Node ? child : shown(String(child)));
  }
  return node;
}

/** An element of HTML. */
export function element(name, attributes, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** An element of SVG. */
export function drawn(name, attributes, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

/** The element of the page with this id. */
export const byId = (id) => document.getElementById(id);

/** Sets a node's text where it differs: what stands is not touched, so that selections and screen readers are left alone. */
export function say(node, text) {
  const safe = shown(text);
  if (node.textContent !== safe) node.textContent = safe;
}
