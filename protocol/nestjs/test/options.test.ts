import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { TransportOptionsError } from '../src/errors.js';
import { settingsOf, withoutPassword, type RabbitMQTransportOptions } from '../src/options.js';

const URL_ADVICE = 'url must look like amqp://user:password@host:5672/vhost';
const url = 'amqp://guest:guest@localhost:5672/shop';
const settings = (options: object) => settingsOf(options as RabbitMQTransportOptions, () => 'made-up');

const REFUSED: [string, object, string][] = [
  ['no URL', {}, URL_ADVICE],
  ['a URL that is not text', { url: 5672 }, URL_ADVICE],
  ['text that is no URL', { url: 'localhost:' }, `${URL_ADVICE}, not localhost://...`],
  ['nothing but a word', { url: 'rabbit' }, URL_ADVICE],
  ['the URL of another protocol', { url: 'redis://localhost' }, `${URL_ADVICE}, not redis://...`],
  ['no slots', { url, concurrency: 0 }, 'concurrency is 0; it must be an integer from 1 to 65535'],
  ['part of a slot', { url, concurrency: 1.5 }, 'concurrency is 1.5; it must be an integer from 1 to 65535'],
  ['too many slots', { url, concurrency: 65_536 }, 'concurrency is 65536; it must be an integer from 1 to 65535'],
  ['a number as text', { url, concurrency: '10' }, 'concurrency is 10; it must be an integer from 1 to 65535'],
  ['a long prefix', { url, prefix: 'ü'.repeat(51) }, 'prefix must be text of at most 100 bytes'],
  ['a namespace that is not text', { url, namespace: 7 }, 'namespace must be text of at most 100 bytes'],
  ['a long partition', { url, partition: 'p'.repeat(101) }, 'partition must be text of at most 100 bytes'],
  ['a long instance id', { url, instanceId: 'i'.repeat(101) }, 'instanceId must be text of at most 100 bytes'],
  ['a limit that is no number', { url, maxMessageBytes: Number.NaN }, 'maxMessageBytes is NaN; it must be a positive integer'],
  ['a limit that nothing fits', { url, maxMessageBytes: 0 }, 'maxMessageBytes is 0; it must be a positive integer'],
];

describe('options', () => {
  for (const [what, options, message] of REFUSED) {
    it(`${what} is refused: ${message}`, () => {
      assert.throws(() => settings(options), new TransportOptionsError(message));
    });
  }

  it('what is not stated has its default', () => {
    const { logger, ...found } = settings({ url });
    assert.equal(typeof logger.warn, 'function');
    assert.deepEqual(found, {
      url,
      prefix: 'durable',
      namespace: undefined,
      partition: undefined,
      instanceId: 'made-up',
      concurrency: 10,
      autoStart: true,
      maxMessageBytes: 16 * 1024 * 1024,
      onDeadLetter: undefined,
      onSignal: undefined,
      store: undefined,
      signing: undefined,
    });
  });

  it('a URL is logged without user and password', () => {
    assert.equal(withoutPassword('amqps://shop:s3cret@mq.example:5671/eu'), 'amqps://mq.example:5671/eu');
  });
});
