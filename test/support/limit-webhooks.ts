import type { WebhookTopic } from '#contracts/api-webhook.ts'
import { newId } from '#db/ids.ts'
import { changeLimit, type LimitChange } from '#db/limit.ts'
import { fanOut } from '#db/webhook-fan-out.ts'
import { createWebhook } from '#db/webhook.ts'
import { expect } from 'vitest'
import { z } from 'zod'
import { testSecrets } from './api-deps.ts'
import type { LimitEnvelope, LimitWorld } from './limits.ts'

const bodySchema = z.object({
  type: z.literal('limit.threshold'),
  data: z.looseObject({
    limitId: z.string(),
    percent: z.int(),
    spent: z.object({ amount: z.string() }),
    cap: z.object({ amount: z.string() }),
    window: z.object({ startsAt: z.string(), resetsAt: z.string().nullable() }),
  }),
})

/** A webhook of the world's project, of which nothing is sent. */
export async function useHook(world: LimitWorld, topics: readonly WebhookTopic[] = ['threshold']): Promise<string> {
  const asked = {
    url: 'https://example.com/hook',
    topics,
    lowBalance: [],
    secret: Buffer.alloc(32),
    box: testSecrets.now(),
    nowMs: Date.now(),
  }
  return (await world.db.transaction().execute((trx) => createWebhook(trx, world.scope, asked))).id
}

/** All that a webhook was told of limits by now, in this order. */
export async function toldOf(world: LimitWorld, webhookId: string) {
  await fanOut(world.db, Date.now())
  const rows = world.db.selectFrom('webhook_delivery').select('body').where('webhook_id', '=', webhookId)
  return (await rows.orderBy('created_at').execute()).map(({ body }) => bodySchema.parse(body).data)
}

/** The same: percentages, what was spent and the cap, in nano. */
export const figuresOf = async (world: LimitWorld, webhookId: string) =>
  (await toldOf(world, webhookId)).map(({ percent, spent, cap }) => [percent, nanoOf(spent), nanoOf(cap)])

const nanoOf = ({ amount }: { readonly amount: string }) => Math.round(Number(amount) * 1e9)

export const operatorOf = ({ organisationId }: LimitWorld) => ({
  keyId: newId(Date.now()),
  organisationId,
  projectId: null,
})

export async function change(world: LimitWorld, asked: LimitChange): Promise<void> {
  expect(await changeLimit(world.db, operatorOf(world), asked)).toBe('changed')
}

/** One call that costs as much. */
export async function spend(envelope: LimitEnvelope, amount: bigint): Promise<void> {
  await envelope.settle(await envelope.hold({ amount }), { amount })
}
