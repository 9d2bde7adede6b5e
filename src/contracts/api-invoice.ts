import { INVOICE_STATUSES } from '#domain/invoice-comparison.ts'
import { z } from 'zod'
import { amountSchema } from './api-money.ts'
import { utcMomentSchema } from './instant.ts'
import { storableText } from './storable-text.ts'

/** Largest invoice, in bytes: some hundred thousand lines. */
export const MAX_INVOICE_BYTES = 16 * 1024 * 1024

export const invoiceRequestSchema = z.strictObject({
  provider: storableText.min(1).max(100).describe('As routes call it.'),
  from: utcMomentSchema,
  to: utcMomentSchema.describe('Up to, and without.'),
  csv: storableText
    .min(1)
    .describe(
      'With a line of names: request_id (the provider’s, or `<call id>:<attempt>`), model, amount, currency and, if it is ' +
        'known, tokens. Lines of one request add up; other columns are not read.',
    ),
})

const differenceSchema = z.object({
  status: z
    .enum(INVOICE_STATUSES)
    .describe('`unknown`: nothing of ours is billed by it. `not_on_invoice`: booked by us, and not billed.'),
  line: z.int().nullable().describe('Of the CSV.'),
  requestId: z.string().nullable().describe('As the invoice has it.'),
  callId: z.uuid().nullable(),
  attempt: z.int().nullable(),
  invoiced: amountSchema.nullable(),
  booked: amountSchema.nullable(),
  invoicedModel: z.string().nullable(),
  bookedModel: z.string().nullable(),
  invoicedTokens: z.string().nullable(),
  bookedTokens: z.string().nullable(),
})

export const invoiceSchema = z
  .object({
    id: z.uuid(),
    digest: z.string().describe('SHA-256 of the CSV.'),
    knownSince: z.iso.datetime().nullable().describe('When the same invoice was sent before; `null`: it is new.'),
    counts: z.record(z.enum(['matched', ...INVOICE_STATUSES]), z.int()),
    totals: z.array(z.object({ invoiced: amountSchema, booked: amountSchema, difference: amountSchema })),
    differences: z.array(differenceSchema).describe('The first thousand; all are counted.'),
  })
  .meta({ id: 'InvoiceComparison' })

export type InvoiceView = z.infer<typeof invoiceSchema>
