import {
  deliveryListSchema,
  deliveryQuerySchema,
  newWebhookSchema,
  webhookChangeSchema,
  webhookListQuerySchema,
  webhookListSchema,
  webhookRequestSchema,
  webhookSchema,
  type WebhookView,
} from '#contracts/api-webhook.ts'
import { Problem } from '#contracts/codes.ts'
import { listDeliveries, revive, type Delivery } from '#db/webhook-delivery.ts'
import {
  changeWebhook,
  createWebhook,
  endWebhook,
  getWebhook,
  hasRoomForWebhook,
  listWebhooks,
  lockWebhook,
  MOST_WEBHOOKS,
  type LowBalance,
  type Webhook,
} from '#db/webhook.ts'
import { invariant } from '#domain/invariant.ts'
import { parseDecimal, toAmount } from '#domain/money.ts'
import { randomBytes } from 'node:crypto'
import { isIP } from 'node:net'
import { z } from 'zod'
import { notFound, tenantFor, tenantDb } from './access.ts'
import type { Api, RouteDeps } from './api-deps.ts'
import { answerChange, answerPost } from './idempotency.ts'
import { pageAsked, pageOf } from './page.ts'
import { isPublicAddress } from './public-address.ts'
import { projectToList } from './run-read-routes.ts'
import { secretBoxOf } from './secrets-key.ts'
import { faulty } from './validation.ts'

const SECRET_BYTES = 32
const idParams = z.object({ id: z.string() })
const tags = ['Webhooks']

export function webhookRoutes(app: Api, deps: RouteDeps): void {
  const { nowMs, allowsPrivateWebhooks } = deps
  app.post(
    '/webhooks',
    {
      config: {
        access: 'any',
        versioned: 'webhook',
        audit: 'webhook.create',
        problems: ['not_found', 'no_secrets_key', 'too_many'],
      },
      schema: {
        tags,
        summary: 'Have an address told what happens in a project',
        description:
          'Each event of the topics is posted there as JSON, signed as Standard Webhooks says, until it is answered with a ' +
          '2xx: nine times in half a day, then it is a dead letter. It may come twice: `webhook-id` is the same then.',
        body: webhookRequestSchema,
        response: { 201: newWebhookSchema },
      },
    },
    (request, reply) =>
      answerPost({ request, reply, schema: newWebhookSchema }, async (trx) => {
        const { projectId, url, topics, lowBalance } = request.body
        checkUrl(url, allowsPrivateWebhooks)
        const scope = await tenantFor(trx, request, { noun: 'project', id: projectToList(request, projectId) })
        const box = secretBoxOf(deps)
        const secret = randomBytes(SECRET_BYTES)
        const marks = lowBalance.map(markOf)
        const asked = { url, topics: [...new Set(topics)], lowBalance: marks }
        if (!(await hasRoomForWebhook(trx, scope))) throw tooMany()
        const body = viewOf(await createWebhook(trx, scope, { ...asked, secret, box, nowMs: nowMs() }))
        const remedy = 'The secret was answered once. If it is lost, delete this webhook and make another.'
        const told = { ...body, secret: `whsec_${secret.toString('base64')}` }
        return { status: 201, body: told, kept: { ...body, remedy } }
      }),
  )
}

export function webhookListRoutes(app: Api): void {
  app.get(
    '/webhooks',
    {
      config: { access: 'any', problems: ['not_found'] },
      schema: {
        tags,
        summary: 'Webhooks of a project, newest first',
        querystring: webhookListQuerySchema,
        response: { 200: webhookListSchema },
      },
    },
    async (request) => {
      const db = tenantDb(request)
      const { projectId } = request.query
      const scope = await tenantFor(db, request, { noun: 'project', id: projectToList(request, projectId) })
      const { items, nextCursor } = pageOf(request, await listWebhooks(db, scope, pageAsked(request)))
      return { webhooks: items.map(viewOf), nextCursor }
    },
  )

  app.get(
    '/webhooks/:id',
    {
      config: { access: 'any', versioned: 'webhook' },
      schema: { tags, summary: 'A webhook, without its secret', params: idParams, response: { 200: webhookSchema } },
    },
    async (request) => {
      const db = tenantDb(request)
      const { id } = request.params
      const webhook = await getWebhook(db, await tenantFor(db, request, { noun: 'webhook', id }), id)
      if (!webhook) throw notFound('webhook', id)
      return viewOf(webhook)
    },
  )
}

export function webhookChangeRoutes(app: Api, { allowsPrivateWebhooks }: RouteDeps): void {
  app.patch(
    '/webhooks/:id',
    {
      config: { access: 'any', versioned: 'webhook', audit: 'webhook.change', problems: ['invalid_amount'] },
      schema: {
        tags,
        summary: 'Change what a webhook is told, or where',
        description: 'What waits goes to the new address, signed with the same secret.',
        params: idParams,
        body: webhookChangeSchema,
        response: { 200: webhookSchema },
      },
    },
    (request, reply) =>
      answerChange({ request, reply }, async (trx) => {
        const { id } = request.params
        const { url, topics, lowBalance } = request.body
        if (url !== undefined) checkUrl(url, allowsPrivateWebhooks)
        const scope = await tenantFor(trx, request, { noun: 'webhook', id })
        const before = await lockWebhook(trx, scope, id)
        if (!before) throw notFound('webhook', id)
        const changed = await changeWebhook(trx, scope, {
          id,
          url: url ?? before.url,
          topics: topics ? [...new Set(topics)] : before.topics,
          lowBalance: lowBalance?.map(markOf) ?? before.lowBalance,
        })
        return { status: 200, body: viewOf(changed), audit: { before: viewOf(before) } }
      }),
  )

  app.delete(
    '/webhooks/:id',
    {
      config: { access: 'any', versioned: 'webhook', audit: 'webhook.delete' },
      schema: {
        tags,
        summary: 'Delete a webhook',
        description: 'It is told nothing more; what still waits becomes a dead letter.',
        params: idParams,
        response: { 204: z.undefined().describe('It is told nothing more.') },
      },
    },
    (request, reply) =>
      answerChange({ request, reply }, async (trx) => {
        const { id } = request.params
        const scope = await tenantFor(trx, request, { noun: 'webhook', id })
        const ended = await endWebhook(trx, scope, id)
        if (!ended) throw notFound('webhook', id)
        return { status: 204, body: undefined, audit: { before: viewOf(ended) } }
      }),
  )
}

export function deliveryRoutes(app: Api): void {
  app.get(
    '/webhooks/:id/deliveries',
    {
      config: { access: 'any' },
      schema: {
        tags,
        summary: 'What a webhook was told, newest first',
        description: 'With `state=dead`: what was given up.',
        params: idParams,
        querystring: deliveryQuerySchema,
        response: { 200: deliveryListSchema },
      },
    },
    async (request) => {
      const db = tenantDb(request)
      const { id } = request.params
      const { state, from, to } = request.query
      const scope = await tenantFor(db, request, { noun: 'webhook', id })
      const found = await listDeliveries(db, scope, { ...pageAsked(request), webhookId: id, state, from, to })
      const { items, nextCursor } = pageOf(request, found)
      return { deliveries: items.map(deliveryOf), nextCursor }
    },
  )

  app.post(
    '/webhook-deliveries/:id/retry',
    {
      config: { access: 'any', audit: 'delivery.retry', problems: ['not_dead'] },
      schema: {
        tags,
        summary: 'Send a dead letter again',
        params: idParams,
        response: { 202: z.object({ id: z.uuid() }) },
      },
    },
    (request, reply) =>
      answerPost({ request, reply, schema: z.object({ id: z.uuid() }) }, async (trx) => {
        const { id } = request.params
        const scope = await tenantFor(trx, request, { noun: 'delivery', id })
        if (!(await revive(trx, scope, id))) {
          throw new Problem('not_dead', 'It waits or was heard, or its webhook is deleted.')
        }
        return { status: 202, body: { id } }
      }),
  )
}

type Mark = z.infer<typeof webhookRequestSchema>['lowBalance'][number]

function markOf({ balanceClass, below }: Mark): LowBalance {
  const parsed = parseDecimal(below.amount)
  invariant(parsed.ok, 'the schema has checked the amount')
  return { balanceClass, currency: below.currency, belowNano: parsed.nano }
}

function tooMany(): Problem {
  return new Problem('too_many', `The organisation has ${MOST_WEBHOOKS} webhooks, and may have no more.`, {
    remedy: 'Delete one (DELETE /api/v1/webhooks/{id}), or have one told more topics with PATCH.',
  })
}

/** Names are looked up when they are told: only what is wrong by itself is refused here. */
function checkUrl(url: string, allowsPrivate: boolean): void {
  if (allowsPrivate) return
  const { protocol, hostname } = new URL(url)
  const host = hostname.replace(/^\[|\]$/g, '')
  const fault =
    protocol !== 'https:' ? 'is not https' : isIP(host) !== 0 && !isPublicAddress(host) ? 'is a private address' : ''
  if (fault === '') return
  throw faulty(
    [{ path: 'url', message: fault }],
    'Send an https address of the public internet. PURSER_WEBHOOKS_PRIVATE=true allows others.',
  )
}

function viewOf({ id, projectId, url, topics, lowBalance, createdAt, version }: Webhook): WebhookView {
  return {
    id,
    projectId,
    url,
    topics: [...topics],
    lowBalance: lowBalance.map(({ balanceClass, currency, belowNano }) => ({
      balanceClass,
      below: toAmount(belowNano, currency),
    })),
    createdAt: createdAt.toISOString(),
    version,
  }
}

function deliveryOf(delivery: Delivery) {
  const { body, dueAt, createdAt, deliveredAt, ...rest } = delivery
  return {
    ...rest,
    body: z.record(z.string(), z.unknown()).parse(body),
    dueAt: delivery.state === 'waiting' ? dueAt.toISOString() : null,
    createdAt: createdAt.toISOString(),
    deliveredAt: deliveredAt?.toISOString() ?? null,
  }
}
