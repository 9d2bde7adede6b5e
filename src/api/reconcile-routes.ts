import { reconcile, voidLost } from '#calls/reconcile.ts'
import { reconciliationSchema, voidedSchema, voidRequestSchema } from '#contracts/api-reconcile.ts'
import { Problem } from '#contracts/codes.ts'
import { toAmount } from '#domain/money.ts'
import { z } from 'zod'
import { callerOfRequest, notFound, tenantFor, tenantDb } from './access.ts'
import type { Api, RouteDeps } from './api-deps.ts'
import { auditChange } from './audit.ts'
import { answerPost } from './idempotency.ts'

const tags = ['Reconciliation']

export function reconcileRoutes(app: Api, { lostCost }: RouteDeps): void {
  app.post(
    '/reconciliations',
    {
      config: { access: 'operator', audit: 'reconciliation.run' },
      schema: {
        tags,
        summary: 'Resolve what dead processes left open, now',
        description: 'Every process does this by itself every few seconds. A living owner is never overtaken.',
        body: z.strictObject({}).nullish(),
        response: { 200: reconciliationSchema },
      },
    },
    async (request) => {
      const db = tenantDb(request)
      const { organisationId, keyId } = callerOfRequest(request)
      // Many transactions: what each of them did names the key, and that it was asked for is written first.
      await auditChange(db, request, { status: 200, body: null })
      const { resolved, unresolved } = await reconcile(db, { organisationId, policy: lostCost, by: `key ${keyId}` })
      return {
        resolved: resolved.map(({ currency, held, charged, ...facts }) => ({
          ...facts,
          held: toAmount(held, currency),
          charged: toAmount(charged, currency),
        })),
        unresolved: [...unresolved],
      }
    },
  )

  app.post(
    '/calls/:id/attempts/:number/void',
    {
      config: {
        access: 'operator',
        audit: 'attempt.void',
        problems: ['not_found', 'not_lost', 'still_in_flight'],
      },
      schema: {
        tags,
        summary: "Take a lost attempt's cost back",
        description: 'For who knows that the provider did not bill it. The journal keeps both, and the reason.',
        params: z.object({ id: z.string(), number: z.coerce.number().int().min(1).max(10_000) }),
        body: voidRequestSchema,
        response: { 200: voidedSchema },
      },
    },
    (request, reply) =>
      answerPost({ request, reply, schema: voidedSchema }, async (trx) => {
        const { id, number } = request.params
        const scope = await tenantFor(trx, request, { noun: 'call', id })
        const { keyId } = callerOfRequest(request)
        const { reason } = request.body
        const verdict = await voidLost(trx, scope, { callId: id, number, by: `key ${keyId}`, reason })
        if (verdict === 'unknown') throw notFound('attempt', `${id}:${number}`)
        if (verdict === 'owner_alive') throw stillInFlight(number)
        if (verdict === 'not_lost') throw notLost(number)
        const body = { callId: id, attempt: number, replayed: verdict === 'replayed' }
        return { status: 200, body, audit: { target: `${id}:${number}`, after: { ...body, reason } } }
      }),
  )
}

function stillInFlight(number: number): Problem {
  return new Problem('still_in_flight', `Attempt ${number} is in flight in a living process.`, {
    remedy: 'Cancel its run, or wait for its end.',
  })
}

function notLost(number: number): Problem {
  return new Problem('not_lost', `Attempt ${number} was not lost: its outcome is known.`, {
    remedy: 'Only the cost of a lost attempt can be taken back.',
  })
}
