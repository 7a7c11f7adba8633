import { readFileSync } from 'node:fs';
import type { SigningOptions } from 'nestjs-durable-transport-rabbitmq';

/** What the tests say through the environment. */
export interface Settings {
  readonly amqpUrl: string;
  readonly prefix: string;
  readonly namespace: string | undefined;
  readonly database: string;
  readonly signing: SigningOptions | undefined;
  readonly leaseMs: number;
  readonly silenceMs: number;
  readonly timerPollMs: number;
}

export function readSettings(environment: NodeJS.ProcessEnv): Settings {
  return {
    amqpUrl: required(environment, 'AMQP_URL'),
    prefix: required(environment, 'PREFIX'),
    namespace: environment['NAMESPACE'],
    database: required(environment, 'DATABASE'),
    signing: signingOf(environment['DURABLE_SIGNING_KEYS_FILE']),
    leaseMs: Number(environment['LEASE_MS'] ?? 3_000),
    silenceMs: Number(environment['SILENCE_MS'] ?? 4_000),
    timerPollMs: Number(environment['TIMER_POLL_MS'] ?? 100),
  };
}

/** From a key file as the Python processes read it. */
function signingOf(file: string | undefined): SigningOptions | undefined {
  return file === undefined ? undefined : (JSON.parse(readFileSync(file, 'utf8')) as SigningOptions);
}

function required(environment: NodeJS.ProcessEnv, name: string): string {
  const value = environment[name];
  if (!value) throw new Error(`the environment variable ${name} is not set`);
  return value;
}
