import { callLedgerSchema, keyCallListSchema, keyCallQuerySchema } from '#contracts/api-call.ts'
import { listKeyCalls } from '#db/key-call.ts'
import { readCallLedger } from '#db/run-ledger.ts'
import { z } from 'zod'
import { tenantFor, tenantDb } from './access.ts'
import type { Api } from './api-deps.ts'
import { isMomentAndId, pageAsked, pageFound } from './page.ts'

const idParams = z.object({ id: z.string() })
const tags = ['Calls']

/** Calls that belong to no run: those of a key's own envelope. */
export function keyCallRoutes(app: Api): void {
  app.get(
    '/keys/:id/calls',
    {
      config: { access: 'any' },
      schema: {
        tags,
        summary: 'The calls of a key that belong to no run, newest first',
        description:
          'With their attempts. Those of runs are in the reports of their runs. The same request again within a minute ' +
          'of the end of the first, and without an Idempotency-Key, is likely a repeat that was paid for.',
        params: idParams,
        querystring: keyCallQuerySchema,
        response: { 200: keyCallListSchema },
      },
    },
    async (request) => {
      const db = tenantDb(request)
      const keyId = request.params.id
      const scope = await tenantFor(db, request, { noun: 'api_key', id: keyId })
      const { limit: _limit, cursor: _cursor, order: _order, ...filter } = request.query
      const page = pageAsked(request, isMomentAndId)
      const { calls, likelyRepeats } = await listKeyCalls(db, scope, { filter: { ...filter, keyId }, page })
      const { items, nextCursor } = pageFound(request, calls, ({ at, id }) => `${at}_${id}`)
      return { calls: items, likelyRepeats, nextCursor }
    },
  )

  app.get(
    '/calls/:id/ledger',
    {
      config: { access: 'any' },
      schema: {
        tags,
        summary: 'Every movement of money of a call, in order',
        params: idParams,
        response: { 200: callLedgerSchema },
      },
    },
    async (request) => {
      const db = tenantDb(request)
      const { id } = request.params
      const transfers = await readCallLedger(db, await tenantFor(db, request, { noun: 'call', id }), id)
      return { transfers: [...transfers] }
    },
  )
}
