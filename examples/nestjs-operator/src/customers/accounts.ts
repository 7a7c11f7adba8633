import { Step, type StepLogger } from '@dudousxd/nestjs-durable';
import { Injectable, Logger } from '@nestjs/common';

export interface Account {
  iban: string;
  limit: number;
}

interface OpenAccount {
  customer: string;
  limit: number;
}

/** The bank's own system, in TypeScript. Both workflows use its steps, the Python one too. */
@Injectable()
export class Accounts {
  private readonly log = new Logger(Accounts.name);

  /** Safe to repeat, as every step must be: the same customer gets the same account. */
  @Step({ name: 'accounts.open', retries: 5, backoffMs: 500 })
  async open({ customer, limit }: OpenAccount, step?: StepLogger): Promise<Account> {
    const iban = ibanOf(customer);
    this.log.log(`opened ${iban} for ${customer}`);
    step?.info('account opened', { iban, limit });
    return { iban, limit };
  }

  @Step({ name: 'accounts.turnover' })
  async turnover({ customer }: { customer: string }): Promise<{ iban: string; euros: number }> {
    this.log.log(`turnover of ${customer} asked for`);
    return { iban: ibanOf(customer), euros: 100 * customer.length };
  }
}

function ibanOf(customer: string): string {
  let digits = 0n;
  for (const letter of customer) digits = (digits * 31n + BigInt(letter.codePointAt(0)!)) % 10n ** 10n;
  return `NL00DURA${digits.toString().padStart(10, '0')}`;
}
