// Runs before the first paint, so that a chosen theme and language do not flash.
(() => {
  const read = (name) => { try { return localStorage.getItem("inkwell." + name); } catch { return null; } };
  const theme = read("theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  const wanted = read("language") || navigator.languages.find((each) => /^(zh|en)/i.test(each)) || "en";
  document.documentElement.lang = /^zh/i.test(wanted) ? "zh" : "en";
})();
