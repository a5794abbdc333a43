// The views, in the order of the head. README.md says what a view is.

export const VIEWS = [
  { name: "search", scope: "search", label: { en: "Search", zh: "搜索" }, load: () => import("./search.js") },
];
