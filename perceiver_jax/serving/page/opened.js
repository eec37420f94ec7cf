// No module: browsers load none for a page that was opened as a file.
if (location.protocol === "file:") {
  addEventListener("DOMContentLoaded", () => {
    document.getElementById("about").textContent =
      "Browsers run this page from a web server alone, such as python -m http.server in its folder.";
    document.getElementById("status").textContent = "";
  });
}
