import type { WorkflowTask } from '@dudousxd/nestjs-durable-core';
import type { SigningOptions } from '../src/index.js';
import { valueOf } from '../src/wire.js';
import { transportConformance, type Bench } from '../src/conformance/index.js';
import { AMQP_URL, Lab } from './rabbitmq.js';
import { Relay } from './relay.js';

async function open(signing?: SigningOptions): Promise<Bench> {
  const lab = new Lab(undefined, signing);
  const relay = await Relay.to(AMQP_URL);
  const url = relay.through(AMQP_URL);
  return {
    operator: lab.open({ url }),
    worker: lab.open({ url }),
    openOperator: () => Promise.resolve(lab.open({ url })),
    openWorker: () => Promise.resolve(lab.open({ url })),
    redelivers: true,
    // This transport serves steps only; the turns are answered over the wire.
    async serveWorkflow(workflow, decide) {
      const queue = lab.names.tasks(workflow.replaceAll(':', '-'));
      await lab.declare(queue);
      const consumer = lab.raw.createConsumer({ queue, queueOptions: { passive: true } }, async (message) => {
        const decision = decide(valueOf(message) as WorkflowTask);
        await lab.publish(lab.names.decisions, 'workflow-decision', decision, { messageId: decision.taskId });
      });
      await new Promise<void>((resolve) => consumer.once('ready', resolve));
      stops.push(() => consumer.close());
    },
    sendHeartbeat: (beat) => lab.broadcast(lab.names.heartbeat, 'heartbeat', beat),
    interrupt() {
      relay.cut();
      return Promise.resolve();
    },
    outage() {
      relay.refuse();
      return Promise.resolve(() => Promise.resolve(relay.accept()));
    },
    async close() {
      await Promise.all(stops.splice(0).map((stop) => stop()));
      await lab.close();
      await relay.close();
    },
  };
}

const stops: (() => Promise<void>)[] = [];

transportConformance({ name: 'RabbitMQ', open: () => open() });

const signing = { keys: { k1: Buffer.alloc(32, 1) }, current: 'k1' };
transportConformance({ name: 'RabbitMQ, all signed', open: () => open(signing) });
