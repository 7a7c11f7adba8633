import { InMemoryTransport } from '@dudousxd/nestjs-durable-core';
import { transportConformance, type Bench } from '../src/conformance/index.js';

function open(): Promise<Bench> {
  const transport = new InMemoryTransport();
  return Promise.resolve({
    operator: transport,
    worker: transport,
    sendHeartbeat: (beat) => transport.emitHeartbeat(beat),
    close: () => Promise.resolve(),
  });
}

transportConformance({ name: 'In-memory', open });
