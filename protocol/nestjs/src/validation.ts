/** Holds messages to the specification's JSON Schemas. */
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import { SCHEMAS } from './generated/schemas.js';

const ajv = new Ajv2020({ schemas: SCHEMAS, strict: false, allErrors: false, validateFormats: false });
const compiled = new Map<string, ValidateFunction>();

/** What is wrong with a message of this type; undefined if it fits. */
export function problemWith(type: string, value: unknown): string | undefined {
  let validate = compiled.get(type);
  if (validate === undefined) {
    const found = ajv.getSchema(`urn:durable:v1:${type}`);
    if (found === undefined) return `no such message type: ${type}`;
    validate = found as ValidateFunction;
    compiled.set(type, validate);
  }
  if (validate(value)) return undefined;
  const [first] = validate.errors ?? [];
  const missing = first?.keyword === 'required' ? ` (${String(first.params.missingProperty)})` : '';
  const place = first?.instancePath ? ` at ${first.instancePath}` : '';
  return `${type}${place} ${first?.message ?? 'does not fit its schema'}${missing}`;
}
