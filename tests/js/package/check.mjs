// What the package in web/ is, seen from outside:
//
//   node check.mjs
//
// Packs it as npm would, installs it into an empty project, and writes one line of JSON:
//   {"files": [...], "exports": [...], "declared": [...], "dependencies": 0, "bytes": gzipped size of its bundle, "types": what tsc says}

import { execFile } from 'node:child_process';
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';

const run = promisify(execFile);
const HERE = import.meta.dirname;
const PACKAGE = resolve(HERE, '../../../web');

const folder = await mkdtemp(join(tmpdir(), 'passerelle-package-'));
try {
  const [{ files }] = JSON.parse((await run('npm', ['pack', '--dry-run', '--json', PACKAGE], { cwd: folder })).stdout);
  const paths = files.map(({ path }) => path).sort();
  const installed = join(folder, 'node_modules/passerelle-client');
  await mkdir(installed, { recursive: true });
  for (const path of paths) await cp(join(PACKAGE, path), join(installed, path));
  for (const name of ['usage.ts', 'tsconfig.json']) await cp(join(HERE, name), join(folder, name));
  await writeFile(join(folder, 'package.json'), JSON.stringify({ type: 'module' }));

  const tsc = resolve(HERE, '../node_modules/.bin/tsc');
  const types = await run(tsc, ['--project', folder], { cwd: folder }).then(({ stdout }) => stdout, ({ stdout }) => stdout);
  const bundle = await build({
    stdin: { contents: "export * from 'passerelle-client'", resolveDir: folder },
    bundle: true,
    minify: true,
    format: 'esm',
    write: false,
    logLevel: 'silent',
  });
  const manifest = JSON.parse(await readFile(join(installed, 'package.json'), 'utf8'));
  const declarations = await readFile(join(installed, manifest.types), 'utf8');
  console.log(
    JSON.stringify({
      files: paths,
      exports: Object.keys(await import(join(installed, manifest.exports['.'].default))).sort(),
      declared: [...declarations.matchAll(/^export (?:class|function) (\w+)/gm)].map(([, name]) => name).sort(),
      dependencies: Object.keys({ ...manifest.dependencies, ...manifest.peerDependencies }).length,
      bytes: gzipSync(bundle.outputFiles[0].contents, { level: 9 }).length,
      types,
    }),
  );
} finally {
  await rm(folder, { recursive: true });
}
