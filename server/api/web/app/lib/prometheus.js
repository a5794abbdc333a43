// Reads the text format of /metrics, as much of it as this server writes, and what two readings say together.

const LINE = /^(\w+)(?:\{(.*)\})? (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

// A reading: for each name, its samples [{ labels, value }], and when it was read.
export function parse(text, at) {
  const samples = new Map();
  for (const line of text.split("\n")) {
    const found = line[0] === "#" ? null : LINE.exec(line);
    if (!found || found[1].endsWith("_created")) continue;
    const labels = Object.fromEntries([...(found[2] || "").matchAll(LABEL)].map(([, name, value]) => [name, value]));
    if (!samples.has(found[1])) samples.set(found[1], []);
    samples.get(found[1]).push({ labels, value: Number(found[3].replace("Inf", "Infinity")) });
  }
  return { samples, at };
}

const every = () => true;

export function sum(reading, name, wanted = every) {
  return (reading.samples.get(name) || []).reduce((total, { labels, value }) => (wanted(labels) ? total + value : total), 0);
}

// What a counter grew between two readings. One that fell began again, with its server.
export const grown = (before, after, name, wanted) => Math.max(0, sum(after, name, wanted) - sum(before, name, wanted));

export const rate = (before, after, name, wanted) => grown(before, after, name, wanted) / Math.max(0.001, after.at - before.at);

// The value below which a share of a histogram's observations lies, null where there are none.
export function quantile(before, after, name, share, wanted = every) {
  const bounds = new Map();
  for (const [reading, sign] of [[after, 1], [before, -1]]) {
    for (const { labels, value } of reading.samples.get(name + "_bucket") || []) {
      if (wanted(labels)) bounds.set(labels.le, (bounds.get(labels.le) || 0) + sign * value);
    }
  }
  const steps = [...bounds].map(([le, count]) => [le === "+Inf" ? Infinity : Number(le), count]).sort((a, b) => a[0] - b[0]);
  const all = steps.length ? steps[steps.length - 1][1] : 0;
  if (all <= 0) return null;
  let low = 0, below = 0;
  for (const [bound, count] of steps) {
    if (count >= share * all) return bound === Infinity ? low : low + (bound - low) * ((share * all - below) / Math.max(1e-9, count - below));
    [low, below] = [bound, count];
  }
  return low;
}
