// Bundles GraphiQL with all it needs into dist/, compressed: npm ci && npm run build.
import { build } from "esbuild";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";

await rm("dist", { recursive: true, force: true });
await mkdir("dist");
const shared = {
  bundle: true, minify: true, write: false, outdir: "dist", format: "iife", target: "es2022", legalComments: "none",
  loader: { ".ttf": "dataurl", ".woff2": "dataurl" },
  define: { "process.env.NODE_ENV": '"production"' }, jsx: "automatic",
};
const { outputFiles } = await build({
  ...shared,
  entryPoints: {
    main: "main.jsx",
    "editor.worker": "monaco-editor/esm/vs/editor/editor.worker.js",
    "json.worker": "monaco-editor/esm/vs/language/json/json.worker.js",
    "graphql.worker": "monaco-graphql/esm/graphql.worker.js",
  },
});
for (const file of outputFiles) {
  await writeFile(`dist/${file.path.split("/").pop()}.gz`, gzipSync(file.contents, { level: 9 }));
}
for (const name of await readdir("dist")) {
  console.log(name, (await readFile(`dist/${name}`)).length);
}
