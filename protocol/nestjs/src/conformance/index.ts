/**
 * What an operator may expect of any nestjs-durable `Transport`, as tests on `node:test`.
 *
 * What a transport lacks, and what its bench cannot do, is skipped with the reason.
 */
import { describe, it } from 'node:test';
import { Unavailable, type Bench } from './bench.js';
import { BROADCASTS } from './broadcasts.js';
import type { Case } from './case.js';
import { CLIENTS } from './clients.js';
import { OUTAGES } from './outages.js';
import { REGISTRY } from './registry.js';
import { STEPS } from './steps.js';
import { TURNS } from './turns.js';

export type { Bench, OperatorSide, WorkerSide } from './bench.js';

export interface ConformanceOptions {
  /** Of the transport, for the report. */
  name: string;
  /** A bench of its own for each case: what one case leaves behind must not reach the next. */
  open: () => Promise<Bench>;
  /** For one case. Default 60 s. */
  timeoutMs?: number;
}

const CASES: readonly Case[] = [...STEPS, ...TURNS, ...BROADCASTS, ...REGISTRY, ...CLIENTS, ...OUTAGES];

/** Defines the tests; call it at the top of a test file. */
export function transportConformance({ name, open, timeoutMs = 60_000 }: ConformanceOptions): void {
  describe(`${name} transport`, () => {
    for (const each of CASES) {
      it(each.name, { timeout: timeoutMs }, async (test) => {
        const bench = await open();
        try {
          await each.run(bench);
        } catch (error) {
          if (!(error instanceof Unavailable)) throw error;
          test.skip(error.message);
        } finally {
          await bench.close();
        }
      });
    }
  });
}
