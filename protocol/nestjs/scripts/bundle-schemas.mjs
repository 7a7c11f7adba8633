// The specification's schemas become one module, so that the package holds messages to them.
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';

const folder = new URL('../../schemas/v1/', import.meta.url);
const schemas = readdirSync(folder)
  .filter((name) => name.endsWith('.schema.json'))
  .sort()
  .map((name) => JSON.parse(readFileSync(new URL(name, folder), 'utf8')));
const target = new URL('../src/generated/', import.meta.url);
mkdirSync(target, { recursive: true });
writeFileSync(
  new URL('schemas.ts', target),
  `// Made from protocol/schemas/v1 by scripts/bundle-schemas.mjs.\nexport const SCHEMAS: object[] = ${JSON.stringify(schemas, null, 1)};\n`,
);
