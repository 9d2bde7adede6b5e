import { z } from 'zod'
import { amountSchema } from './api-money.ts'
import { CERTAINTIES } from './names.ts'
import { storableText } from './storable-text.ts'

const runIdSchema = z.uuid().nullable().describe("Null for a call of a key's standing envelope.")

export const reconciliationSchema = z
  .object({
    resolved: z
      .array(
        z.object({
          runId: runIdSchema,
          callId: z.uuid(),
          attempt: z.int(),
          held: amountSchema,
          charged: amountSchema,
          certainty: z.enum(CERTAINTIES).nullable(),
        }),
      )
      .describe('Attempts whose process was dead, resolved by this request.'),
    unresolved: z
      .array(z.object({ runId: runIdSchema, callId: z.uuid(), attempt: z.int(), message: z.string() }))
      .describe('Attempts whose process was dead and that stay open, each with what went wrong.'),
  })
  .meta({ id: 'Reconciliation' })

export const voidRequestSchema = z.strictObject({
  reason: storableText.trim().min(1).max(500).describe('How it is known that the provider did not bill it.'),
})

export const voidedSchema = z
  .object({ callId: z.uuid(), attempt: z.int(), replayed: z.boolean().describe('It was voided before.') })
  .meta({ id: 'VoidedAttempt' })
