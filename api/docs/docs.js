// Shows openapi.yaml with Swagger UI. Everything comes from the server that this page came from.
"use strict";

// The document names the address of a local server. "Try it out" calls the one that shows the page, which is the only
// one that the page may call, and the text says so.
const here = new URL(".", document.baseURI).href.replace(/\/$/, "");
const callThisServer = () => ({
  statePlugins: {
    spec: {
      wrapActions: {
        updateJsonSpec: (update) => (spec) => update({
          ...spec,
          servers: [{ url: here }],
          info: {
            ...spec.info,
            description: `${spec.info.description}\n**Try it out** calls this server, \`${here}\`, for real.`,
          },
        }),
      },
    },
  },
});

const dark = window.matchMedia("(prefers-color-scheme: dark)");
const followTheme = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", followTheme);
followTheme();

SwaggerUIBundle({
  url: "openapi.yaml",
  dom_id: "#reference",
  plugins: [callThisServer],
  validatorUrl: null, // its default is a service on the Internet
  deepLinking: true,
  displayRequestDuration: true,
  defaultModelsExpandDepth: 0,
  defaultModelExpandDepth: 3,
  syntaxHighlight: { theme: "obsidian" }, // the numbers of the others are too dim
});
