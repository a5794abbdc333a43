// The views, in the order of the head. README.md says what a view is.

export const VIEWS = [
  { name: "search", scope: "search", label: { en: "Search", zh: "搜索" }, load: () => import("./search.js") },
  { name: "add", scope: "write", label: { en: "Add", zh: "添加" }, load: () => import("./add.js"), styles: ["views.css"] },
  { name: "collections", scope: "search", label: { en: "Collections", zh: "集合" }, load: () => import("./collections.js"), styles: ["views.css"] },
  { name: "map", scope: "search", label: { en: "Map", zh: "分布" }, load: () => import("./map.js"), styles: ["views.css"] },
  { name: "compare", scope: "embed", label: { en: "Compare", zh: "比较" }, load: () => import("./compare.js"), styles: ["views.css"] },
  { name: "load", scope: "metrics", label: { en: "Load", zh: "负载" }, load: () => import("./load.js"), styles: ["views.css"] },
];
