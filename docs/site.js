// What the generator's pages lack for screen readers and keyboards: tables that scroll have to be reached by a keyboard, and
// lists within the navigation are no landmarks of their own.
const mend = () => {
  for (const box of document.querySelectorAll(".md-typeset__scrollwrap:not([tabindex])")) {
    box.tabIndex = 0;
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", "Table");
  }
  for (const part of document.querySelectorAll("nav nav:not([role])")) {
    for (const name of ["aria-label", "aria-labelledby", "aria-expanded"]) part.removeAttribute(name);
    part.setAttribute("role", "none");
  }
  document.querySelectorAll("nav.md-code__nav").forEach((part, place) => {
    if (!part.hasAttribute("aria-label")) part.setAttribute("aria-label", `Code block ${place + 1}`);
  });
};
new MutationObserver(mend).observe(document.body, { childList: true, subtree: true });
mend();
