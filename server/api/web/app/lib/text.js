// Texts with marked words. The server counts characters (code points), JavaScript counts UTF-16 units.
import { h } from "./dom.js";

// Ranges in order, joined where they touch.
export function merged(ranges) {
  const found = [];
  for (const [begin, end] of [...ranges].sort((a, b) => a[0] - b[0])) {
    const last = found[found.length - 1];
    if (last && begin <= last[1]) last[1] = Math.max(last[1], end);
    else found.push([begin, end]);
  }
  return found;
}

// Nodes for characters [from, to) of an array of characters; ranges are positions in that array.
export function marked(characters, ranges, from = 0, to = characters.length, name = "mark") {
  const nodes = [];
  let place = from;
  for (const [begin, end] of merged(ranges)) {
    const [first, last] = [Math.max(begin, place), Math.min(end, to)];
    if (first >= last) continue;
    if (first > place) nodes.push(characters.slice(place, first).join(""));
    nodes.push(h(name, {}, characters.slice(first, last).join("")));
    place = last;
  }
  if (place < to) nodes.push(characters.slice(place, to).join(""));
  return nodes;
}

// At most `size` characters around the place where the most marks stand close together.
export function excerpt(text, ranges, size) {
  const characters = Array.from(text.length > 4 * size + 80_000 ? text.slice(0, 4 * size + 80_000) : text);
  let from = 0, most = 0;
  const spans = merged(ranges);
  for (const [begin] of spans) {
    const within = spans.filter((each) => each[0] >= begin && each[1] <= begin + size * 0.7).length;
    if (within > most) [most, from] = [within, begin];
  }
  from = from < size * 0.4 ? 0 : Math.max(0, from - 24);
  const to = Math.min(characters.length, from + size);
  return [from > 0 && "… ", ...marked(characters, spans, from, to), to < characters.length && " …"];
}
