import { z } from 'zod'
import { amountSchema } from './api-money.ts'
import { CERTAINTIES } from './names.ts'
import { storableText } from './storable-text.ts'

export const reconciliationSchema = z
  .object({
    resolved: z
      .array(
        z.object({
          runId: z.uuid(),
          callId: z.uuid(),
          attempt: z.int(),
          held: amountSchema,
          charged: amountSchema,
          certainty: z.enum(CERTAINTIES).nullable(),
        }),
      )
      .describe('Attempts whose process was dead, resolved by this request.'),
  })
  .meta({ id: 'Reconciliation' })

export const voidRequestSchema = z.strictObject({
  reason: storableText.trim().min(1).max(500).describe('How it is known that the provider did not bill it.'),
})

export const voidedSchema = z
  .object({ callId: z.uuid(), attempt: z.int(), replayed: z.boolean().describe('It was voided before.') })
  .meta({ id: 'VoidedAttempt' })
