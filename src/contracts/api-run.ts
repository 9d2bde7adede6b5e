import { RUN_STATES } from '#domain/run-states.ts'
import { z } from 'zod'
import { amountSchema, pocketsSchema } from './api-money.ts'
import { nextCursorSchema, pageQuerySchema } from './api-page.ts'
import { reuseSchema, tightSchema } from './call-choices.ts'
import { constraintsSchema } from './constraints.ts'
import { BALANCE_CLASSES, GATES, ON_EXHAUSTED, TRANSFER_CODES, CERTAINTIES, USES } from './names.ts'
import { storableText } from './storable-text.ts'

const moment = z.iso.datetime()

export const runRequestSchema = z.strictObject({
  agent: z.string().min(1).max(100),
  input: z.record(z.string(), z.unknown()).describe("Must fit the agent's JSON Schema."),
  model: z.string().min(1).max(100).describe('A catalog model.'),
  envelope: z.strictObject({ pockets: pocketsSchema }),
  onExhausted: z.enum(ON_EXHAUSTED).describe('What to do when the money ends. There is no default.'),
  mayRepeat: z
    .int()
    .min(1)
    .max(5)
    .default(1)
    .describe('How often a call may be sent again after an attempt that may have been executed.'),
  pauseDeadlineSeconds: z.int().min(1).max(604_800).default(86_400),
  constraints: constraintsSchema.optional().describe('Kept besides those of the key.'),
  tight: tightSchema
    .default({ policy: 'refuse' })
    .describe('What a call does whose worst case is more than its share of what is free: ask for less, or be refused.'),
  reuse: reuseSchema
    .optional()
    .describe('Its calls may be answered with answers of other runs that chose this, at no cost, and give theirs.'),
})

export const topUpRequestSchema = z.strictObject({ pockets: pocketsSchema })

/** The body may be left out. */
export const cancelRequestSchema = z.strictObject({ reason: storableText.trim().min(1).max(300).optional() }).nullish()

const pocketSchema = z.object({
  balanceClass: z.enum(BALANCE_CLASSES),
  currency: z.string(),
  funded: amountSchema,
  spent: amountSchema,
  held: amountSchema,
  free: amountSchema,
  returned: amountSchema.describe('What went back, to the wallet or to the run above, when the envelope closed.'),
  inChildren: amountSchema.describe('Carved for child runs, less what came back from them.'),
})

export const runSummarySchema = z
  .object({
    id: z.uuid(),
    projectId: z.uuid(),
    agent: z.string(),
    model: z.string(),
    state: z.enum(RUN_STATES),
    reason: z.string().nullable().describe('Why it is paused or ended: a word.'),
    detail: z.string().nullable().describe('The same as a sentence.'),
    createdAt: moment,
    startedAt: moment.nullable(),
    finishedAt: moment.nullable(),
  })
  .meta({ id: 'RunSummary' })

export const runSchema = runSummarySchema
  .extend({
    input: z.unknown(),
    onExhausted: z.enum(ON_EXHAUSTED),
    mayRepeat: z.int(),
    pauseDeadlineSeconds: z.int(),
    constraints: constraintsSchema.nullable(),
    tight: tightSchema,
    reuse: reuseSchema.nullable(),
    envelope: z.object({
      id: z.uuid(),
      gate: z.enum(GATES),
      gateReason: z.string().nullable(),
      pockets: z.array(pocketSchema),
    }),
    stop: z
      .object({ limit: z.string(), needed: amountSchema, free: amountSchema })
      .nullable()
      .describe('The limit that stopped it, when money did.'),
    output: z.unknown(),
  })
  .meta({ id: 'Run' })

export const runListQuerySchema = pageQuerySchema.extend({
  state: z.enum(RUN_STATES).optional(),
  projectId: z.string().optional().describe('Required of an operator key; a project key lists its own project.'),
})

export const runListSchema = z.object({ runs: z.array(runSummarySchema), nextCursor: nextCursorSchema })

const accountSchema = z.object({
  id: z.uuid(),
  kind: z.string(),
  balanceClass: z.enum(BALANCE_CLASSES).nullable(),
})

/** One movement of the journal, as it was written. */
export const transferSchema = z
  .object({
    id: z.uuid(),
    code: z.enum(TRANSFER_CODES),
    recordedAt: moment,
    debit: accountSchema,
    credit: accountSchema,
    amount: amountSchema,
    released: amountSchema.describe('What a capture, void or expiry took out of its hold.'),
    resolves: z.uuid().nullable().describe('The hold it resolves.'),
    callId: z.uuid().nullable(),
    attempt: z.int().nullable(),
    certainty: z.enum(CERTAINTIES).nullable(),
    use: z.enum(USES).nullable(),
    lotId: z.uuid().nullable().describe('The lot of credit that it drew from, or gave back to.'),
    quoteId: z.uuid().nullable().describe('The quote that it was exchanged at.'),
    balanceAfter: amountSchema.nullable().describe("The envelope's pocket right after it, held money included."),
    heldAfter: amountSchema.nullable(),
  })
  .meta({ id: 'Transfer' })

export const ledgerSchema = z.object({ transfers: z.array(transferSchema), nextCursor: nextCursorSchema })

export type RunRequest = z.infer<typeof runRequestSchema>
export type RunView = z.infer<typeof runSchema>
export type RunSummary = z.infer<typeof runSummarySchema>
export type TransferView = z.infer<typeof transferSchema>
