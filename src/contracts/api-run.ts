import { RUN_STATES } from '#domain/run-states.ts'
import { z } from 'zod'
import { amountSchema, pocketsSchema } from './api-money.ts'
import { filterText, nextCursorSchema, pageQuerySchema, periodQuery } from './api-page.ts'
import { reuseSchema, tightSchema } from './call-choices.ts'
import { constraintsSchema } from './constraints.ts'
import {
  BALANCE_CLASSES,
  CANCEL_MODES,
  CERTAINTIES,
  GATES,
  ON_EXHAUSTED,
  TRANSFER_CODES,
  USES,
  WHEN_EXHAUSTED,
  type OnExhausted,
} from './names.ts'
import { downgradeSchema, runLimitsSchema, thresholdsSchema } from './run-options.ts'
import { storableText } from './storable-text.ts'

const moment = z.iso.datetime()

const envelopeSchema = z.strictObject({
  pockets: pocketsSchema,
  wrapUpPercent: z
    .int()
    .min(0)
    .max(50)
    .default(0)
    .describe('How much of each pocket is kept for delivering what is done when the run is stopped.'),
})

/** How a run spends, waits and ends, without the defaults of a new one. */
export const runChoices = {
  model: z.string().min(1).max(100).describe('A catalog model.'),
  onExhausted: z.enum(ON_EXHAUSTED).describe('What to do when the money ends. There is no default.'),
  mayRepeat: z
    .int()
    .min(0)
    .max(5)
    .describe(
      'How often a call may be sent again after an attempt that may have been executed; 0: the run pauses and asks.',
    ),
  pauseDeadlineSeconds: z.int().min(1).max(604_800),
  constraints: constraintsSchema.describe('Kept besides those of the key.'),
  tight: tightSchema.describe(
    'What a call does whose worst case is more than its share of what is free: ask for less, or be refused.',
  ),
  reuse: reuseSchema.describe(
    'Its calls may be answered with answers of other runs that chose this, at no cost, and give theirs.',
  ),
  downgrade: downgradeSchema.describe('With `onExhausted: downgrade`: what it goes on with.'),
  limits: runLimitsSchema,
  thresholds: thresholdsSchema,
  priority: z.int().min(1).max(5).describe('1 is served first. Among equals projects take turns.'),
}

const runRequestShape = {
  agent: z.string().min(1).max(100),
  input: z.record(z.string(), z.unknown()).describe("Must fit the agent's JSON Schema."),
  envelope: envelopeSchema,
  ...runChoices,
  mayRepeat: runChoices.mayRepeat.default(1),
  pauseDeadlineSeconds: runChoices.pauseDeadlineSeconds.default(86_400),
  constraints: runChoices.constraints.optional(),
  tight: runChoices.tight.default({ policy: 'refuse' }),
  reuse: runChoices.reuse.optional(),
  downgrade: runChoices.downgrade.optional(),
  limits: runChoices.limits.optional(),
  thresholds: runChoices.thresholds.default([]),
  priority: runChoices.priority.default(3),
}

export const runRequestSchema = z.strictObject(runRequestShape).superRefine(checkDowngrade)

/** What starts a run, or asks what it would do. */
export const startRequestSchema = z
  .strictObject({
    ...runRequestShape,
    dryRun: z.literal(true).optional().describe('Answers with the plan: nothing is stored, and no money moves.'),
  })
  .superRefine(checkDowngrade)

function checkDowngrade(
  run: { readonly onExhausted: OnExhausted; readonly downgrade?: unknown },
  context: z.RefinementCtx,
): void {
  if ((run.onExhausted === 'downgrade') === (run.downgrade !== undefined)) return
  const message = run.downgrade ? 'goes with `onExhausted: downgrade` only' : 'is missing: the run is to be downgraded'
  context.addIssue({ code: 'custom', path: ['downgrade'], message })
}

const overrides = z.strictObject({ envelope: envelopeSchema, ...runChoices }).partial()

/** What is to be another than in the run that is repeated. The body may be left out. */
export const rerunRequestSchema = overrides.nullish()

/** The body may be left out. */
export const forkRequestSchema = overrides
  .extend({
    from: storableText
      .min(1)
      .max(300)
      .optional()
      .describe(
        'The step that is done anew, with all that came after it: a path, or what its paths begin with, such as `read`. Left out: all stored answers are used again.',
      ),
  })
  .nullish()

export const topUpRequestSchema = z.strictObject({ pockets: pocketsSchema })

/** The body may be left out. */
export const cancelRequestSchema = z
  .strictObject({
    reason: storableText.trim().min(1).max(300).optional(),
    mode: z.enum(CANCEL_MODES).default('now').describe('`wrap_up`: what is in flight may finish, then it delivers.'),
  })
  .nullish()

/** The body may be left out. */
export const emptyRequestSchema = z.strictObject({}).nullish()

export const answerRequestSchema = z.strictObject({
  path: storableText.min(1).max(300).optional().describe('Of the question; may be left out when one is open.'),
  answer: storableText.trim().min(1).max(4_000).describe('One of its choices, if it has some.'),
})

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
    onExhausted: z.enum(WHEN_EXHAUSTED).describe('`refuse`: of an external run.'),
    mayRepeat: z.int(),
    pauseDeadlineSeconds: z.int(),
    downgrade: downgradeSchema.nullable(),
    limits: runLimitsSchema.nullable(),
    thresholds: z.array(z.int()),
    wrapUpPercent: z.int(),
    priority: z.int(),
    parentRunId: z.uuid().nullable().describe('The run that it is a child of.'),
    sourceRunId: z.uuid().nullable().describe('The run that it repeats, or was forked from.'),
    scheduleId: z.uuid().nullable().describe('What started it by the clock.'),
    queue: z
      .object({ position: z.int() })
      .nullable()
      .describe("While it waits for one of its project's places: how many are served before it, and itself."),
    deadlineAt: moment.nullable().describe('When its time is over.'),
    downgradedAt: moment.nullable(),
    question: z
      .object({ path: z.string(), text: z.string(), choices: z.array(z.string()).nullable(), askedAt: moment })
      .nullable()
      .describe('What it waits to be answered, when it is paused for input.'),
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
    erasedAt: moment
      .nullable()
      .describe(
        'Since when its output and what its calls asked and were answered is not stored any more: it cannot be forked.',
      ),
    outputSha256: z.string().nullable().describe('Of an output that was erased, as the database writes it, in hex.'),
  })
  .meta({ id: 'Run' })

export const runListQuerySchema = pageQuerySchema.extend({
  state: z.enum(RUN_STATES).optional(),
  agent: filterText.optional(),
  model: filterText.optional(),
  ...periodQuery,
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
export type RunOverrides = z.infer<typeof overrides>
