/** Messages as AMQP carries them: protocol/README.md, "AMQP 0-9-1 binding". */
import type { AsyncMessage, Envelope } from 'rabbitmq-client';
import { MalformedMessageError, UnsendableError } from './errors.js';
import { problemWith } from './validation.js';

export const PROTOCOL = { version: 1, range: [1, 1] as [number, number] };
export const PROTOCOL_HEADER = 'durable-protocol';
export const ERROR_HEADER = 'durable-error';
export const RESENT_HEADER = 'durable-resent';
const SHORT_STRING_BYTES = 255;

export type MessageType =
  | 'step-task'
  | 'step-result'
  | 'workflow-task'
  | 'workflow-decision'
  | 'step-event'
  | 'start-run'
  | 'run-request'
  | 'run-reply'
  | 'tenant-event'
  | 'control'
  | 'heartbeat'
  | 'worker-beat'
  | 'worker-descriptor'
  | 'who';

export interface Outgoing {
  type: MessageType;
  value: object;
  messageId?: string;
  /** Milliseconds after which the broker may drop it. */
  expiresMs?: number;
  headers?: Record<string, string>;
}

/** Throws `UnsendableError` for what no broker would take. */
export function toEnvelope(message: Outgoing, target: string, maxBytes: number): [Envelope, Buffer] {
  const body = bodyOf(message);
  if (body.byteLength > maxBytes) {
    throw new UnsendableError(
      `a ${message.type} of ${body.byteLength} bytes is over the limit of ${maxBytes}; ` +
        'keep large values elsewhere and pass a reference',
    );
  }
  requireShort('queue name', target);
  requireShort('message id', message.messageId ?? '');
  const envelope: Envelope = {
    contentType: 'application/json',
    type: message.type,
    headers: { ...message.headers, [PROTOCOL_HEADER]: 1 },
    ...(message.messageId === undefined ? {} : { messageId: message.messageId }),
    ...(message.expiresMs === undefined ? {} : { expiration: String(message.expiresMs) }),
  };
  return [envelope, body];
}

function bodyOf(message: Outgoing): Buffer {
  try {
    return Buffer.from(JSON.stringify(message.value), 'utf8');
  } catch (error) {
    throw new UnsendableError(`a ${message.type} has no JSON form: ${(error as Error).message}`);
  }
}

function requireShort(what: string, text: string): void {
  const bytes = Buffer.byteLength(text);
  if (bytes > SHORT_STRING_BYTES) {
    throw new UnsendableError(`${what} ${text} has ${bytes} bytes, AMQP carries ${SHORT_STRING_BYTES}`);
  }
}

/** The message's value; throws `MalformedMessageError` for what does not fit the specification. */
export function readMessage<T>(
  message: AsyncMessage,
  expected: readonly MessageType[],
  { isAnyMajor = false } = {},
): T {
  const type = message.type as MessageType | undefined;
  if (type !== undefined && !expected.includes(type)) {
    throw new MalformedMessageError(`type ${JSON.stringify(type)} does not belong here; expected ${expected.join(' or ')}`);
  }
  const major: unknown = message.headers?.[PROTOCOL_HEADER] ?? 1;
  if (!isAnyMajor && (typeof major !== 'number' || major < PROTOCOL.range[0] || major > PROTOCOL.range[1])) {
    throw new MalformedMessageError(
      `header ${PROTOCOL_HEADER} is ${String(major)}, understood is ${PROTOCOL.range.join(' to ')}`,
    );
  }
  const value = valueOf(message);
  const problem = problemWith(type ?? (expected[0] as MessageType), value);
  if (problem !== undefined) throw new MalformedMessageError(problem);
  return value as T;
}

/** The parsed body; throws `MalformedMessageError` if it is not JSON in UTF-8. */
export function valueOf(message: AsyncMessage): unknown {
  const isParsed = !Buffer.isBuffer(message.body) && message.contentType === 'application/json';
  if (isParsed) return message.body;
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytesOf(message)));
  } catch (error) {
    throw new MalformedMessageError(`the body is not JSON: ${(error as Error).message}`);
  }
}

/** The body's bytes. The client has parsed JSON already: then they are written anew. */
export function bytesOf(message: AsyncMessage): Buffer {
  if (Buffer.isBuffer(message.body)) return message.body;
  const isText = message.contentType !== 'application/json';
  return Buffer.from(isText ? String(message.body) : JSON.stringify(message.body), 'utf8');
}

/** Whom a message is about, as far as it still tells. */
export interface Addressee {
  runId: string;
  seq: number | undefined;
  taskId: string | undefined;
}

export function addresseeOf(message: AsyncMessage): Addressee | undefined {
  let value: unknown;
  try {
    value = valueOf(message);
  } catch {
    return undefined;
  }
  if (typeof value !== 'object' || value === null) return undefined;
  const { runId, seq, taskId } = value as Record<string, unknown>;
  if (typeof runId !== 'string' || runId === '') return undefined;
  return {
    runId,
    seq: Number.isSafeInteger(seq) ? (seq as number) : undefined,
    taskId: typeof taskId === 'string' && taskId !== '' ? taskId : undefined,
  };
}

/** The attempt in `<stepId>:<attempt>`. */
export function attemptIn(messageId: string | undefined): number | undefined {
  const number = messageId === undefined ? '' : messageId.slice(messageId.lastIndexOf(':') + 1);
  return /^[1-9]\d{0,8}$/.test(number) ? Number(number) : undefined;
}
