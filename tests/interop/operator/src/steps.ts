import { setTimeout as sleep } from 'node:timers/promises';

import { FatalError } from '@dudousxd/nestjs-durable-core';
import { Step } from '@dudousxd/nestjs-durable';
import { Injectable } from '@nestjs/common';

import { journal } from './journal.js';

export interface Part {
  run: string;
  number: number;
}

@Injectable()
export class Steps {
  @Step('ts.double')
  double(value: number): Promise<number> {
    return Promise.resolve(value * 2);
  }

  @Step('ts.refuse')
  refuse(customer: string): Promise<never> {
    return Promise.reject(new FatalError(`no such customer: ${customer}`, 'unknown-customer'));
  }

  @Step('ts.work')
  async work(part: Part): Promise<number> {
    const key = `ts:${part.run}:${part.number}`;
    journal('start', key);
    await sleep(10);
    journal('end', key);
    return part.number;
  }
}
