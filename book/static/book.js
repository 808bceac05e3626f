// Opened as a file, a page may not read another one: the search shows its results without their first lines.
if (location.protocol === "file:" && typeof DOCUMENTATION_OPTIONS !== "undefined") {
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
}

// A search that hits a term of the glossary says which: "Glossary: LoRA" instead of "Glossary".
document.addEventListener("DOMContentLoaded", () => {
  const results = document.querySelector("#search-results");
  if (!results) return;
  const name = () =>
    results.querySelectorAll('a[href*="#term-"]').forEach((link) => {
      const term = decodeURIComponent(link.hash.slice("#term-".length)).replaceAll("-", " ");
      if (/[a-z]{2}/i.test(term) && !link.textContent.includes(": ")) link.textContent += `: ${term}`;
    });
  new MutationObserver(name).observe(results, { childList: true, subtree: true });
});

// From a search the glossary opens at what was looked for, also where that was a Chinese word.
window.addEventListener("load", () => {
  const found = location.hash ? null : document.querySelector("dl.glossary .highlighted");
  if (found) found.scrollIntoView({ block: "center" });
});

// Chinese emphasis has dots below; Latin words stay slanted, and captions are too long for dots.
if (document.documentElement.lang.startsWith("zh")) {
  document.addEventListener("DOMContentLoaded", () =>
    document.querySelectorAll(".bd-article em").forEach((one) => {
      if (!/\p{Script=Han}/u.test(one.textContent)) one.classList.add("latin");
      else if (one.textContent.length > 24) one.classList.add("long");
    }));
}
