import { BadRequestException, type PipeTransform } from '@nestjs/common';
import { z } from 'zod';

export const Customer = z.object({ name: z.string().min(1), country: z.string().length(2) });
export type Customer = z.infer<typeof Customer>;

export const Applicant = Customer.extend({ id: z.string().regex(/^[a-z0-9-]{1,40}$/) });
export type Applicant = z.infer<typeof Applicant>;

export const Approval = z.object({ by: z.string().min(1) });
export type Approval = z.infer<typeof Approval>;

/** `@Body(as(Approval))`: what does not fit is a 400 that says why. */
export const as = <T>(schema: z.ZodType<T>): PipeTransform<unknown, T> => ({
  transform(body) {
    const parsed = schema.safeParse(body ?? {});
    if (parsed.success) return parsed.data;
    throw new BadRequestException(z.prettifyError(parsed.error));
  },
});
