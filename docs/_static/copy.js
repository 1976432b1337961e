// A button on every block of code: it copies what is typed, without prompts and without what is printed.
document.addEventListener("DOMContentLoaded", () => {
  const typed = (text) => {
    const lines = text.replace(/\n+$/, "").split("\n");
    if (!lines.some((line) => /^(>>>|\$) /.test(line))) return lines.join("\n");
    return lines.filter((line) => /^(>>>|\.\.\.|\$)( |$)/.test(line)).map((line) => line.replace(/^(>>>|\.\.\.|\$) ?/, "")).join("\n");
  };
  for (const block of document.querySelectorAll("div.highlight")) {
    const code = block.querySelector("pre");
    if (!code) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy-code";
    button.textContent = "Copy";
    button.setAttribute("aria-label", "Copy this code");
    button.dataset.code = typed(code.innerText);
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.dataset.code);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    block.append(button);
  }
});
