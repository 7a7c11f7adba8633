import { fileURLToPath } from 'node:url';

/** What the environment says, with defaults that work for a RabbitMQ on this machine. */
export const settings = {
  port: portOf(process.env.PORT ?? '3000'),
  amqpUrl:
    process.env.AMQP_URL ?? process.env.DURABLE_BROKER_URL ?? 'amqp://guest:guest@localhost:5672',
  /** The Python worker's `--prefix` must be the same. */
  prefix: process.env.DURABLE_PREFIX ?? 'durable',
  database: process.env.DATABASE ?? fileURLToPath(new URL('../.data/durable.db', import.meta.url)),
};

function portOf(text: string): number {
  const port = Number(text);
  if (Number.isInteger(port) && port >= 0 && port <= 65_535) return port;
  console.error(`error: PORT is ${JSON.stringify(text)}; it must be a number from 0 to 65535`);
  process.exit(2);
}
