import { z } from 'zod'
import { amountSchema, positiveAmountSchema } from './api-money.ts'
import { nextCursorSchema, pageQuerySchema, periodQuery, versionSchema } from './api-page.ts'
import { BALANCE_CLASSES } from './names.ts'

export const WEBHOOK_TOPICS = ['state', 'threshold', 'exhaustion', 'fallback', 'question', 'low_balance'] as const
/**
 * `state`: a run begins, pauses, goes on or ends. `threshold`: it has spent a percentage, or a limit is used up to one.
 * `exhaustion`: money refused a call, of a run or of a key. `fallback`: a call of either was tried on another route than its
 * first. `question`: a run asks its owner. `low_balance`: a wallet.
 */
export type WebhookTopic = (typeof WEBHOOK_TOPICS)[number]

const moment = z.iso.datetime()

const lowBalance = { balanceClass: z.enum(BALANCE_CLASSES) }

const url = z
  .url({ protocol: /^https?$/ })
  .max(2_000)
  .regex(/^[\x21-\x7e]+$/, 'ASCII without spaces: encode the others with %')
  .describe('https, and no private address unless the installation allows it.')
const topics = z.array(z.enum(WEBHOOK_TOPICS)).min(1).max(WEBHOOK_TOPICS.length)
const marks = z
  .array(z.strictObject({ ...lowBalance, below: positiveAmountSchema }))
  .max(16)
  .describe('Told once when the wallet has less, and again after it had more.')

export const webhookRequestSchema = z.strictObject({
  projectId: z.string().optional().describe("The project; left out by a project's own key."),
  url,
  topics,
  lowBalance: marks.default([]),
})

export const webhookChangeSchema = z
  .strictObject({ url: url.optional(), topics: topics.optional(), lowBalance: marks.optional() })
  .refine((change) => Object.values(change).some((value) => value !== undefined), 'changes nothing')

export const webhookSchema = z
  .object({
    id: z.uuid(),
    projectId: z.uuid(),
    url: z.string(),
    topics: z.array(z.enum(WEBHOOK_TOPICS)),
    lowBalance: z.array(z.object({ ...lowBalance, below: amountSchema })),
    createdAt: moment,
    version: versionSchema,
  })
  .meta({ id: 'Webhook' })

/** The secret is answered once. */
export const newWebhookSchema = webhookSchema
  .extend({
    secret: z.string().optional().describe('`whsec_…`: what deliveries are signed with (Standard Webhooks).'),
    remedy: z.string().optional(),
  })
  .meta({ id: 'NewWebhook' })

export const webhookListSchema = z.object({ webhooks: z.array(webhookSchema), nextCursor: nextCursorSchema })

export const webhookListQuerySchema = pageQuerySchema.extend({ projectId: z.string().optional() })

const deliverySchema = z
  .object({
    id: z.uuid(),
    topic: z.enum(WEBHOOK_TOPICS),
    body: z.record(z.string(), z.unknown()),
    state: z.enum(['waiting', 'delivered', 'dead']),
    tries: z.int(),
    dueAt: moment.nullable(),
    lastStatus: z.int().nullable(),
    lastError: z.string().nullable(),
    createdAt: moment,
    deliveredAt: moment.nullable(),
  })
  .meta({ id: 'WebhookDelivery' })

export const deliveryListSchema = z.object({ deliveries: z.array(deliverySchema), nextCursor: nextCursorSchema })

export const deliveryQuerySchema = pageQuerySchema.extend({
  state: z.enum(['waiting', 'delivered', 'dead']).optional().describe('`dead`: given up after all its tries.'),
  ...periodQuery,
})

export type WebhookView = z.infer<typeof webhookSchema>
