// Elements by hand. Children are text or nodes, never HTML, so nothing that is stored can run as script.

const SVG = "http://www.w3.org/2000/svg";

// h("a.name", { href, on: { click }, style: { width }, data: { id } }, ...children)
// A child that is null, undefined or false is left out. An attribute that is null or false is left out.
export function h(name, attributes = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  return filled(document.createElement(tag), classes, attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  return filled(document.createElementNS(SVG, tag), classes, attributes, children);
}

function filled(element, classes, attributes, children) {
  if (classes.length) element.classList.add(...classes);
  for (const [key, value] of Object.entries(attributes)) set(element, key, value);
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false).map(shown));
  return element;
}

// Characters that turn the direction of what follows let "exe.txt" look like another name: they are shown, not obeyed.
const TURNING = /[\u202a-\u202e\u2066-\u2069]/g;
export const shown = (child) => (typeof child === "string" ? child.replace(TURNING, "\ufffd") : child);

function set(element, key, value) {
  if (value === null || value === undefined || value === false) return;
  if (key === "on") for (const [event, act] of Object.entries(value)) element.addEventListener(event, act);
  else if (key === "data") Object.assign(element.dataset, value);
  // By the object model: the policy forbids style attributes.
  else if (key === "style") for (const [property, said] of Object.entries(value)) element.style.setProperty(property, said);
  else if (key === "value") element.value = value;
  else element.setAttribute(key, value === true ? "" : value);
}

// Text of a stranger in a line of ours: its direction marks end with it.
export const stranger = (text, name = "bdi") => h(name, { dir: "auto" }, text);

const ICONS = {
  search: "M10.500 4a6.500 6.500 0 1 0 0 13 6.500 6.500 0 0 0 0-13zM15.300 15.300 20 20",
  close: "M6 6l12 12M18 6 6 18",
  key: "M8 15a4 4 0 1 1 3.800-5.200H20v3h-2v3h-3v-3h-3.200A4 4 0 0 1 8 15z",
  help: "M9 9.500a3 3 0 1 1 4.200 2.700c-.8.4-1.200 1-1.200 1.800M12 17.500v.1",
  auto: "M12 4a8 8 0 1 0 0 16zM12 4a8 8 0 0 1 0 16",
  light: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2.500v2M12 19.500v2M2.500 12h2M19.500 12h2M5.300 5.300l1.400 1.400M17.300 17.300l1.400 1.400M5.300 18.700l1.400-1.400M17.300 6.700l1.400-1.400",
  dark: "M19.500 14.500A8 8 0 0 1 9.500 4.500a8 8 0 1 0 10 10z",
  filter: "M4 6h16M7 12h10M10 18h4",
  left: "M14 6l-6 6 6 6",
  right: "M10 6l6 6-6 6",
};

export function icon(name) {
  return svg("svg.icon", { viewBox: "0 0 24 24", "aria-hidden": "true" }, svg("path", { d: ICONS[name] }));
}

export function button(label, click, attributes = {}) {
  return h("button", { type: "button", on: { click }, ...attributes }, label);
}

// A button with an icon and a label for readers of the screen and for the pointer.
export function iconButton(name, label, click, attributes = {}) {
  return h("button.quiet", { type: "button", title: label, "aria-label": label, on: { click }, ...attributes }, icon(name));
}

export function segmented(label, options, chosen, choose) {
  return h("div.segmented", { role: "group", "aria-label": label }, options.map(([value, text, about]) =>
    h("button", { type: "button", "aria-pressed": String(value === chosen), title: about, data: { value }, on: { click: () => choose(value) } }, text)));
}
