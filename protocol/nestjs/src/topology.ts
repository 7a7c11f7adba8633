/** Declarations that must be the same everywhere: protocol/README.md, "AMQP 0-9-1 binding". */
import type { Connection, ConsumerProps } from 'rabbitmq-client';
import type { Names } from './names.js';

const BROADCAST_QUEUE_LENGTH = 10_000;

type QueueDeclaration = Parameters<Connection['queueDeclare']>[0] & object;

export function workQueue(name: string, names: Names): QueueDeclaration {
  const quorum = { 'x-queue-type': 'quorum' } as const;
  if (name === names.dead) return { queue: name, durable: true, arguments: quorum };
  return {
    queue: name,
    durable: true,
    arguments: {
      ...quorum,
      'x-delivery-limit': 10,
      'x-overflow': 'reject-publish',
      'x-dead-letter-exchange': '',
      'x-dead-letter-routing-key': names.dead,
      'x-dead-letter-strategy': 'at-least-once',
    },
  };
}

export function exchangesOf(names: Names): { exchange: string; type: string; durable: true }[] {
  const fanouts = [names.control, names.heartbeat, names.runReply, names.workers];
  return [
    ...fanouts.map((exchange) => ({ exchange, type: 'fanout', durable: true as const })),
    { exchange: names.tenantEvents, type: 'topic', durable: true as const },
  ];
}

/** A queue of the listener's own that gets what the exchange broadcasts. */
export function listenerOn(exchange: string, routingKey: string, names: Names): ConsumerProps {
  return {
    queue: '',
    queueOptions: {
      exclusive: true,
      autoDelete: true,
      durable: false,
      arguments: { 'x-queue-type': 'classic', 'x-max-length': BROADCAST_QUEUE_LENGTH },
    },
    exchanges: exchangesOf(names).filter((each) => each.exchange === exchange),
    queueBindings: [{ exchange, routingKey }],
    noAck: true,
    concurrency: 1,
  };
}
