// Sizes, times and durations in the reader's language.
import { language, number } from "./words.js";

const UNITS = ["B", "kB", "MB", "GB", "TB"];
const STEPS = [["year", 31_557_600], ["month", 2_629_800], ["day", 86_400], ["hour", 3600], ["minute", 60], ["second", 1]];

export function bytes(n) {
  const place = n < 1 ? 0 : Math.min(UNITS.length - 1, Math.floor(Math.log10(n) / 3));
  const value = n / 1000 ** place;
  return `${number(value, place > 0 && value < 100 ? 1 : 0)} ${UNITS[place]}`;
}

// 3 days ago. The moment itself belongs into a title: `moment`.
export function ago(when, now = Date.now()) {
  const seconds = Math.max(0, (now - Date.parse(when)) / 1000);
  const [unit, size] = STEPS.find(([, each]) => seconds >= each) || STEPS[STEPS.length - 1];
  return new Intl.RelativeTimeFormat(language(), { numeric: "auto" }).format(-Math.floor(seconds / size), unit);
}

export const moment = (when) => new Date(when).toLocaleString(language());

// 0.8 ms, 12 ms, 1.4 s
export function duration(seconds) {
  if (seconds >= 1) return `${number(seconds, seconds < 10 ? 1 : 0)} s`;
  return `${number(1000 * seconds, seconds < 0.01 ? 1 : 0)} ms`;
}

export const percent = (share, digits = 0) => `${number(100 * share, digits)}%`;
