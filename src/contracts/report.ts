import { OUTCOMES } from '#domain/policy.ts'
import { RUN_STATES } from '#domain/run-states.ts'
import { z } from 'zod'
import { amountSchema } from './api-money.ts'
import { BALANCE_CLASSES, CERTAINTIES, GATES, USES } from './names.ts'

const moment = z.iso.datetime()

/** What refused a hold. Amounts are decimal strings in the major unit for money, whole numbers for tokens and calls. */
const boundSchema = z.object({
  by: z.enum(['pocket', 'parent', 'wallet', 'limit']),
  limitId: z.uuid().nullable(),
  measure: z.enum(['money', 'tokens', 'calls']),
  needed: z.string(),
  free: z.string().describe('Less than what was needed.'),
  cap: z.string().nullable(),
  spent: z.string().nullable(),
  held: z.string().nullable(),
  resetsAt: moment.nullable().describe('When the window of the limit ends.'),
})

/** One request to one route, or a hold that was refused. All money comes from the journal. */
export const attemptReportSchema = z
  .object({
    number: z.int(),
    kind: z.enum(['attempt', 'refusal']),
    route: z.string(),
    provider: z.string(),
    upstreamModel: z.string(),
    balanceClass: z.enum(BALANCE_CLASSES).describe('The pocket that paid, or was asked.'),
    outcome: z.enum(OUTCOMES).nullable().describe('`null`: still in flight.'),
    why: z.enum(['first', 'retry', 'fallback']),
    after: z
      .object({ attempt: z.int(), outcome: z.string() })
      .nullable()
      .describe('The outcome that it retried or fell back from.'),
    message: z.string().nullable(),
    held: amountSchema.describe('The worst case that was held; for a refusal, the money that was asked.'),
    free: amountSchema.nullable().describe('For a refusal for money: what was free.'),
    bound: boundSchema.nullable().describe('For a refusal: what bound it.'),
    captured: amountSchema,
    released: amountSchema,
    overage: amountSchema.describe('What it cost beyond its hold.'),
    corrected: z.object({ amount: z.string(), currency: z.string() }).describe('Later truth minus estimate; signed.'),
    charged: amountSchema.describe('captured + overage + corrected.'),
    certainty: z.enum(CERTAINTIES).nullable(),
    use: z.enum(USES).nullable(),
    tokens: z
      .object({
        input: z.int().describe('The whole prompt: the cached and the written part are in it.'),
        cachedInput: z.int(),
        cacheWrite: z.int(),
        output: z.int().describe('Reasoning is in it.'),
        reasoning: z.int(),
        images: z.int(),
        toolUses: z.record(z.string(), z.int()).describe("Uses of the provider's own tools, by name."),
      })
      .nullable(),
    worstCase: z
      .object({
        inputTokens: z.int(),
        inputBy: z
          .enum(['tokenizer', 'bytes', 'context'])
          .describe("Counted by the model's tokeniser, bounded by bytes, or by what the model takes at all."),
        outputTokens: z.int(),
        images: z.int(),
        clampedFrom: z.int().nullable().describe('The output that was asked for, when it was cut to what can be paid.'),
        distrustPpm: z
          .int()
          .describe('By how much it was raised, in parts per million, because the route billed above a hold before.'),
      })
      .describe('What the hold rests on.'),
    sentAt: moment,
    resolvedAt: moment.nullable(),
    transfers: z.array(z.uuid()).describe('The ledger entries that prove it.'),
  })
  .meta({ id: 'AttemptReport' })

export const callReportSchema = z
  .object({
    id: z.uuid(),
    path: z.string(),
    model: z.string().describe('The catalog model that was asked for.'),
    state: z.enum(['open', 'answered']),
    answeredBy: z.int().nullable().describe('The attempt whose answer is the call’s.'),
    reusedFrom: z
      .uuid()
      .nullable()
      .describe('The call whose stored answer was used again: nothing was sent or charged.'),
    stopReason: z.string().nullable(),
    stopDetail: z.string().nullable(),
    skipped: z
      .array(z.object({ route: z.string(), reason: z.string() }))
      .describe('Routes that could not be tried, or not at that moment: `circuit_open`, `route_limit`.'),
    attempts: z.array(attemptReportSchema),
  })
  .meta({ id: 'CallReport' })

/** What was spent from one balance class and currency, split by each label; the parts of a split add up to `spent`. */
const spendSchema = z.object({
  balanceClass: z.enum(BALANCE_CLASSES),
  currency: z.string(),
  spent: amountSchema,
  useful: amountSchema,
  wasted: amountSchema,
  billed: amountSchema,
  estimated: amountSchema,
  unknown: amountSchema,
  held: amountSchema.describe('Open holds.'),
})

/** A run below another one: what it spent itself, and what is below it. */
const reportChildSchema = z
  .object({
    runId: z.uuid(),
    path: z.string().describe('Of the kit call that started it.'),
    agent: z.string(),
    model: z.string(),
    state: z.enum(RUN_STATES),
    reason: z.string().nullable(),
    totals: z.array(spendSchema),
    attempts: z.int(),
    get children(): z.ZodArray<typeof reportChildSchema> {
      return z.array(reportChildSchema)
    },
  })
  .meta({ id: 'ReportChild' })

const promptSizeSchema = z.object({ callId: z.uuid(), path: z.string(), inputTokens: z.int() })

/** What a client sent again on its own, as likely as not. */
export const likelyRepeatsSchema = z
  .array(
    z.object({
      first: z.uuid().describe('The earliest one that is known here; of a listing, it may be on a later page.'),
      repeats: z.array(z.uuid()).describe('The oldest first.'),
      charged: z
        .array(z.object({ balanceClass: z.enum(BALANCE_CLASSES), charged: amountSchema }))
        .describe('For the repeats: an Idempotency-Key saves it.'),
    }),
  )
  .describe(
    'Calls through the gateway that ask the same as one that ended, or began, less than a minute before, by what they ' +
      'repeat; none came with an Idempotency-Key.',
  )

export type LikelyRepeats = z.infer<typeof likelyRepeatsSchema>

export const reportSchema = z
  .object({
    runId: z.uuid(),
    parentRunId: z.uuid().nullable(),
    projectId: z.uuid(),
    apiKeyId: z.uuid(),
    agent: z.string(),
    model: z.string(),
    state: z.enum(RUN_STATES),
    reason: z.string().nullable(),
    detail: z.string().nullable(),
    stop: z.object({ limit: z.string(), needed: amountSchema, free: amountSchema }).nullable(),
    revision: z.int().describe('How many ledger entries of the run it is computed from.'),
    asOf: moment.describe('By the clock of the database.'),
    final: z.boolean().describe('Nothing can be recorded at or before that instant any more.'),
    envelope: z.object({
      id: z.uuid(),
      gate: z.enum(GATES),
      pockets: z.array(
        z.object({
          balanceClass: z.enum(BALANCE_CLASSES),
          currency: z.string(),
          funded: amountSchema,
          spent: amountSchema,
          held: amountSchema,
          returned: amountSchema,
          inChildren: amountSchema.describe('Carved for child runs, less what came back from them.'),
          free: amountSchema.describe('The closing balance once the envelope is closed: zero.'),
        }),
      ),
    }),
    totals: z.array(spendSchema),
    counts: z.object({
      calls: z.int(),
      attempts: z.int(),
      retries: z.int(),
      fallbacks: z.int(),
      refusals: z.int(),
      lost: z.int(),
      reused: z.int().describe('Calls that were answered with a stored answer, at no cost.'),
    }),
    holds: z
      .object({
        attempts: z.int().describe('Those whose cost the provider told.'),
        p50: z.string(),
        p95: z.string(),
        most: z.string(),
      })
      .nullable()
      .describe('How much of its hold an attempt cost, as a share: 1.000 is all of it, more is an overage.'),
    context: z
      .object({
        calls: z.int(),
        first: z.int(),
        last: z.int(),
        largest: promptSizeSchema,
        trend: z.array(promptSizeSchema).describe('In order; of many calls, evenly spaced ones.'),
      })
      .nullable()
      .describe('Input tokens per call: a context that grows costs more with each.'),
    children: z.array(reportChildSchema).describe('Child runs. What they spent is not in the totals above.'),
    tree: z
      .object({
        totals: z.array(
          z.object({
            balanceClass: z.enum(BALANCE_CLASSES),
            currency: z.string(),
            spent: amountSchema,
            held: amountSchema,
          }),
        ),
      })
      .describe('The run and all below it together.'),
    calls: z.array(callReportSchema),
    likelyRepeats: likelyRepeatsSchema,
  })
  .meta({ id: 'Report' })

/** A prompt or an answer. */
const storedTextSchema = z
  .object({
    erasedAt: moment.nullable().describe('Null: it is stored.'),
    sha256: z.string().nullable().describe('Of what was erased, as the database writes it (jsonb), in hex.'),
  })
  .meta({ id: 'StoredText' })

/** One call's story: the seven answers. */
export const callStorySchema = z
  .object({
    runId: z.uuid().nullable().describe("`null`: it was paid by its key's own envelope."),
    projectId: z.uuid(),
    apiKey: z.object({ id: z.uuid(), name: z.string().nullable(), hint: z.string().nullable() }),
    project: z.object({ id: z.uuid(), name: z.string() }),
    asked: z.object({ model: z.string(), path: z.string(), catalogVersion: z.int(), at: moment }),
    served: z
      .object({ provider: z.string(), upstreamModel: z.string(), route: z.string(), attempt: z.int() })
      .nullable(),
    paid: z.array(z.object({ balanceClass: z.enum(BALANCE_CLASSES), charged: amountSchema })),
    bound: z.object({
      envelopeId: z.uuid(),
      gate: z.enum(GATES),
      verdict: z.enum(['allowed', 'stopped', 'in_flight']),
      reason: z.string().nullable(),
    }),
    stored: z
      .object({ request: storedTextSchema, answer: storedTextSchema.nullable() })
      .describe('What is kept of its texts, as its project chose.'),
    call: callReportSchema,
  })
  .meta({ id: 'CallStory' })

export type AttemptReport = z.infer<typeof attemptReportSchema>
export type CallReport = z.infer<typeof callReportSchema>
export type Report = z.infer<typeof reportSchema>
export type ReportChild = z.infer<typeof reportChildSchema>
export type CallStory = z.infer<typeof callStorySchema>
