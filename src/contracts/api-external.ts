import { z } from 'zod'
import { pocketsSchema } from './api-money.ts'
import { runChoices, runSchema } from './api-run.ts'
import { storableText } from './storable-text.ts'

/** A month: nothing that is still at work is silent for so long. */
const MAX_IDLE_SECONDS = 2_592_000

/** Of a run whose calls are made by a program outside, through the gateway. When its money ends they are refused. */
export const externalRequestSchema = z.strictObject({
  name: storableText.trim().min(1).max(200).optional().describe('What people know it by, such as the command.'),
  model: runChoices.model.optional().describe('The catalog model that it is meant to ask. Bind it with `constraints`.'),
  envelope: z.strictObject({ pockets: pocketsSchema }),
  idleSeconds: z
    .int()
    .min(1)
    .max(MAX_IDLE_SECONDS)
    .default(3_600)
    .describe('It ends when nothing was asked for so long. Pauses do not count.'),
  limits: runChoices.limits.optional(),
  thresholds: runChoices.thresholds.default([]),
  constraints: runChoices.constraints.optional(),
  mayRepeat: runChoices.mayRepeat
    .default(1)
    .describe('How often a call may be sent again after an attempt that may have been executed.'),
  tight: runChoices.tight.default({ policy: 'refuse' }),
  pauseDeadlineSeconds: runChoices.pauseDeadlineSeconds.default(86_400),
})

export const externalRunSchema = z
  .object({
    run: runSchema,
    key: z.object({
      id: z.uuid(),
      hint: z.string().describe('The beginning of the secret.'),
      secret: z
        .string()
        .optional()
        .describe(
          'For the gateway, and for reading this run. Answered once: a repeated request is answered without it.',
        ),
    }),
    remedy: z.string().optional(),
  })
  .meta({ id: 'ExternalRun' })

export type ExternalRequest = z.infer<typeof externalRequestSchema>
