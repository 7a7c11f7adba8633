/** Signed messages: protocol/README.md, "Signatures". */
import { createHmac, randomUUID, timingSafeEqual } from 'node:crypto';
import type { AsyncMessage } from 'rabbitmq-client';
import { TransportOptionsError } from './errors.js';
import type { Logger } from './logger.js';
import { bytesOf, ERROR_HEADER, PROTOCOL_HEADER, RESENT_HEADER } from './wire.js';

export const SIGNATURE_HEADER = 'durable-signature';
/** What a refused message was signed with, for people. */
export const REFUSED_HEADER = 'durable-refused-signature';
const TOKEN_HEADER = 'durable-tenant-token';
const ERROR_QUEUE_HEADER = 'durable-error-queue';
const DEATH_HEADER = 'x-first-death-reason';
const SMALLEST_KEY = 32;
const KEY_ID = /^[A-Za-z0-9_-]{1,64}$/;

export interface SigningOptions {
  /** By id: at least 32 random bytes, as they are or in base64. All are accepted. */
  keys: Record<string, string | Uint8Array>;
  /** The id of the key that signs. */
  current: string;
  /**
   * Whether what no holder of a key has sent to this very place is refused. `false` only tells of it,
   * while signing is introduced process by process. Default true.
   */
  require?: boolean;
}

/** Where a message goes. */
export type Place = { queue: string } | { exchange: string; topic: string };

export type Flaw = 'missing' | 'malformed' | 'unknown-key' | 'elsewhere' | 'forged';

const TOLD: Record<Flaw, string> = {
  missing: 'its signature is missing',
  malformed: 'its signature cannot be read',
  'unknown-key': 'its signature was made with a key that is not known here',
  elsewhere: 'its signature was made for another queue or exchange',
  forged: 'its signature does not belong to this message',
};

/** What of a message is signed, as the client knows it on either way. */
export interface Signable {
  type?: string | undefined;
  messageId?: string | undefined;
  headers?: Record<string, unknown> | undefined;
}

interface Signature {
  keyId: string;
  mac: string;
  place: string;
}

export class Signatures {
  readonly isRequired: boolean;
  readonly #keys = new Map<string, Buffer>();
  readonly #current: string;
  readonly #dead: string;
  readonly #logger: Logger;
  readonly #refused = new Map<string, number>();

  /** Throws `TransportOptionsError`, which tells nothing of a key. */
  constructor(options: SigningOptions, dead: string, logger: Logger) {
    for (const [index, [id, key]] of Object.entries(options.keys ?? {}).entries()) {
      this.#keys.set(id, keyOf(id, key, index + 1));
    }
    if (typeof options.current !== 'string' || !this.#keys.has(options.current)) {
      throw new TransportOptionsError('signing.current must be one of the ids in signing.keys');
    }
    this.#current = options.current;
    this.#dead = dead;
    this.#logger = logger;
    this.isRequired = options.require ?? true;
  }

  /** How often messages were refused, by queue or exchange and flaw. */
  get refused(): ReadonlyMap<string, number> {
    return this.#refused;
  }

  /** The properties with a signature; `contentEncoding` keeps a receiver from parsing before it has seen the bytes. */
  signed<T extends Signable>(properties: T, body: Buffer, place: Place): T & { messageId: string } {
    const messageId = properties.messageId ?? randomUUID();
    const { [SIGNATURE_HEADER]: _, ...headers } = properties.headers ?? {};
    const message = { ...properties, messageId, headers };
    const mac = this.#mac(this.#current, message, body, place);
    const signature = `v1:${this.#current}:${mac}:${textOf(place)}`;
    return { ...message, contentEncoding: 'utf-8', headers: { ...headers, [SIGNATURE_HEADER]: signature } };
  }

  /** What is wrong with a message that has come to this place. */
  flawIn(message: AsyncMessage, at: Place): Flaw | undefined {
    return this.flaw(message, bytesOf(message), at);
  }

  flaw(message: Signable, body: Buffer, at: Place): Flaw | undefined {
    const signature = read(message);
    if (typeof signature === 'string') return signature;
    let place = at;
    if (signature.place !== textOf(at)) {
      const isOnDead = 'queue' in at && at.queue === this.#dead;
      if (!isOnDead || !signature.place.startsWith(this.#dead.slice(0, -'dead'.length))) return 'elsewhere';
      place = { queue: signature.place };
    }
    if (!this.#keys.has(signature.keyId)) return 'unknown-key';
    if (this.#covered(message, place).some(([, value]) => typeof value !== 'string')) return 'forged';
    const expected = Buffer.from(this.#mac(signature.keyId, message, body, place));
    const stated = Buffer.from(signature.mac);
    return stated.length === expected.length && timingSafeEqual(stated, expected) ? undefined : 'forged';
  }

  /** The queue that a letter was signed for, if that is not the queue of the dead letters. */
  originOf(message: Signable): string | undefined {
    const signature = read(message);
    return typeof signature === 'string' || signature.place === this.#dead ? undefined : signature.place;
  }

  /** Why a message must not be acted on; tells of each kind of flaw once. */
  refusalOf(message: AsyncMessage, at: Place): string | undefined {
    const flaw = this.flawIn(message, at);
    if (flaw === undefined) return undefined;
    const key = `${'queue' in at ? at.queue : at.exchange} ${flaw}`;
    const times = (this.#refused.get(key) ?? 0) + 1;
    this.#refused.set(key, times);
    if (times === 1) {
      this.#logger.warn(this.isRequired ? 'signature_refused' : 'signature_not_required_yet', {
        place: textOf(at),
        type: message.type,
        reason: TOLD[flaw],
        next: this.isRequired
          ? 'refused, and from now on without a line; if a process of yours sent it, give it the keys that the others have'
          : 'taken all the same, since signatures are not required here yet',
      });
    }
    return this.isRequired ? TOLD[flaw] : undefined;
  }

  #mac(keyId: string, message: Signable, body: Buffer, place: Place): string {
    const protocol = message.headers?.[PROTOCOL_HEADER];
    const parts = [
      'durable-signature v1',
      keyId,
      'queue' in place ? 'queue' : 'exchange',
      'queue' in place ? place.queue : place.exchange,
      'queue' in place ? '' : place.topic,
      message.type ?? '',
      message.messageId ?? '',
      protocol === undefined || protocol === null ? '' : String(protocol as number),
      ...this.#covered(message, place).flatMap(([name, value]) => [name, String(value as string)]),
      body,
    ];
    const hmac = createHmac('sha256', this.#keys.get(keyId) as Buffer);
    for (const part of parts) {
      const bytes = typeof part === 'string' ? Buffer.from(part, 'utf8') : part;
      const length = Buffer.alloc(8);
      length.writeBigUInt64BE(BigInt(bytes.byteLength));
      // With its length first, so that nothing can move from one part to the next.
      hmac.update(length).update(bytes);
    }
    return hmac.digest('base64url');
  }

  /** Headers of ours on which a receiver acts and that the broker leaves alone. */
  #covered({ headers = {} }: Signable, place: Place): [string, unknown][] {
    const isLetter = 'queue' in place && place.queue === this.#dead;
    const reason = DEATH_HEADER in headers ? DEATH_HEADER : ERROR_HEADER;
    return [RESENT_HEADER, TOKEN_HEADER, ...(isLetter ? [reason, ERROR_QUEUE_HEADER] : [])]
      .filter((name) => name in headers)
      // A 0 makes whoever gets it ask first, and nothing else: whoever has a doubt may add it.
      .filter((name) => name !== RESENT_HEADER || headers[name] !== '0')
      .map((name) => [name, headers[name]]);
  }
}

function keyOf(id: string, key: string | Uint8Array, number: number): Buffer {
  if (!KEY_ID.test(id)) {
    throw new TransportOptionsError(`the id of signing key ${number} must be 1 to 64 letters, digits, - or _`);
  }
  const isText = typeof key === 'string';
  const bytes = isText ? Buffer.from(key, 'base64') : Buffer.from(key);
  if (isText && bytes.toString('base64') !== key.trim()) {
    throw new TransportOptionsError(`signing key ${number} is not base64`);
  }
  if (bytes.byteLength < SMALLEST_KEY) {
    throw new TransportOptionsError(
      `signing key ${number} has ${bytes.byteLength} bytes; it needs ${SMALLEST_KEY} random ones (openssl rand -base64 32)`,
    );
  }
  return bytes;
}

function read({ headers }: Signable): Signature | 'missing' | 'malformed' {
  const text: unknown = headers?.[SIGNATURE_HEADER];
  if (typeof text !== 'string') return 'missing';
  const parts = /^v1:([^:]*):([^:]*):([^]*)$/.exec(text);
  if (parts === null) return 'malformed';
  const [, keyId, mac, place] = parts as unknown as [string, string, string, string];
  return { keyId, mac, place };
}

const textOf = (place: Place): string => ('queue' in place ? place.queue : `${place.exchange}/${place.topic}`);
