import type { Bench } from './bench.js';

export interface Case {
  /** A sentence of behaviour. */
  name: string;
  run: (bench: Bench) => Promise<void>;
}
