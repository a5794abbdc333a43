// Words of the page in both languages. A view brings its own: add({ en: {...}, zh: {...} }).

const WORDS = { en: {}, zh: {} };
export const LANGUAGES = { en: "English", zh: "中文" };

export const language = () => document.documentElement.lang;

export function add(words) {
  for (const each of Object.keys(WORDS)) Object.assign(WORDS[each], words[each]);
}

// The words of a key with its {fields} filled. "{n} hit|{n} hits" is one and many, by n.
export function t(key, fields = {}) {
  let said = WORDS[language()][key] ?? key;
  if (fields.n !== undefined && said.includes("|")) said = said.split("|")[fields.n === 1 ? 0 : 1];
  return said.replace(/\{(\w+)\}/g, (whole, name) => (name in fields ? shown(fields[name]) : whole));
}

const shown = (value) => (typeof value === "number" ? number(value) : String(value));

export function number(value, digits = 0) {
  return new Intl.NumberFormat(language(), { maximumFractionDigits: digits, minimumFractionDigits: digits }).format(value);
}

export function setLanguage(chosen) {
  document.documentElement.lang = chosen;
  remember("language", chosen);
}

export function remember(name, value) {
  try {
    if (value === null) localStorage.removeItem("inkwell." + name);
    else localStorage.setItem("inkwell." + name, value);
  } catch { /* no storage: the choice lasts until the page is closed */ }
}
