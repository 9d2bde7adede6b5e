import {
  depositRequestedSchema,
  depositRequestListSchema,
  depositRequestQuerySchema,
} from '#contracts/api-deposit-request.ts'
import { Problem } from '#contracts/codes.ts'
import { decideRequest, getRequest, listRequests, lockRequest, mayDecide } from '#db/deposit-request.ts'
import { newId } from '#db/ids.ts'
import { z } from 'zod'
import { callerOfRequest, tenantFor, tenantDb } from './access.ts'
import type { Api, RouteDeps } from './api-deps.ts'
import { bookDeposit, depositOf, requestedView } from './deposit-booking.ts'
import { answerPost } from './idempotency.ts'
import { pageAsked, pageOf } from './page.ts'

const idParams = z.object({ id: z.string() })
const tags = ['Wallets']

/** Deposits that wait for another operator, and what becomes of them. */
export function depositRequestRoutes(app: Api): void {
  app.get(
    '/deposit-requests',
    {
      config: { access: 'operator' },
      schema: {
        tags,
        summary: 'Deposits that wait or waited for approval, newest first',
        querystring: depositRequestQuerySchema,
        response: { 200: depositRequestListSchema },
      },
    },
    async (request) => {
      const db = tenantDb(request)
      const { projectId, state } = request.query
      const { organisationId } = callerOfRequest(request)
      const found = await listRequests(db, organisationId, { ...pageAsked(request), projectId, state })
      const { items, nextCursor } = pageOf(request, found)
      return { depositRequests: items.map(requestedView), nextCursor }
    },
  )

  app.get(
    '/deposit-requests/:id',
    {
      config: { access: 'operator' },
      schema: {
        tags,
        summary: 'A deposit that waits or waited for approval',
        params: idParams,
        response: { 200: depositRequestedSchema },
      },
    },
    async (request) => {
      const db = tenantDb(request)
      const { id } = request.params
      return requestedView(await getRequest(db, await tenantFor(db, request, { noun: 'deposit_request', id }), id))
    },
  )
}

export function depositDecisionRoutes(app: Api, { nowMs }: RouteDeps): void {
  for (const decision of ['approve', 'refuse'] as const) {
    app.post(
      `/deposit-requests/:id/${decision}`,
      {
        config: {
          access: 'operator',
          audit: `deposit.${decision}`,
          problems: ['decided', 'own_request', 'reference_mismatch', 'lot_expired', 'wrong_lot'],
        },
        schema: {
          tags,
          summary: decision === 'approve' ? 'Book a deposit that waits' : 'Refuse a deposit that waits',
          description:
            'Once, by a key that was there before the request, and that neither made the key that asked nor was made by it.',
          params: idParams,
          response: { 200: depositRequestedSchema },
        },
      },
      (request, reply) =>
        answerPost({ request, reply, schema: depositRequestedSchema }, async (trx) => {
          const { id } = request.params
          const { keyId } = callerOfRequest(request)
          const scope = await tenantFor(trx, request, { noun: 'deposit_request', id })
          const asked = await lockRequest(trx, scope, id)
          if (asked.state !== 'waiting') throw new Problem('decided', `The deposit was ${asked.state} before.`)
          if (!(await mayDecide(trx, asked, keyId))) {
            throw new Problem(
              'own_request',
              'Who asks for a deposit does not decide on it, nor a key that was made by or for them.',
              {
                remedy:
                  'Another operator decides, with a key that was there before the request: one that neither made the key that ' +
                  'asked nor was made by it.',
              },
            )
          }
          const booked =
            decision === 'approve' ? (await bookDeposit(trx, scope, depositOf(asked, newId(nowMs())))).deposit.id : null
          const decided = await decideRequest(trx, scope, { id, decidedBy: keyId, depositId: booked })
          return { status: 200, body: requestedView(decided) }
        }),
    )
  }
}
