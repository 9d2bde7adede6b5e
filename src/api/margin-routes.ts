import { marginsQuerySchema, marginsSchema } from '#contracts/api-margin.ts'
import { readMargins } from '#db/margin-report.ts'
import type { MarginSums } from '#domain/margin-sums.ts'
import { toAmount } from '#domain/money.ts'
import { callerOfRequest, tenantFor, tenantDb } from './access.ts'
import type { Api, RouteDeps } from './api-deps.ts'
import { faulty } from './validation.ts'

const tags = ['Margins and invoices']

export function marginRoutes(app: Api, { nowMs }: RouteDeps): void {
  app.get(
    '/margins',
    {
      config: { access: 'operator', problems: ['not_found'] },
      schema: {
        tags,
        summary: 'What was sold in a period, what providers bill for it, and what is left',
        description: 'From the journal, as it was booked: a later correction counts when it was made.',
        querystring: marginsQuerySchema,
        response: { 200: marginsSchema },
      },
    },
    async (request) => {
      const db = tenantDb(request)
      const { project: projectId, by, ...asked } = request.query
      const { organisationId } = callerOfRequest(request)
      if (projectId !== undefined) await tenantFor(db, request, { noun: 'project', id: projectId })
      const to = new Date(asked.to ?? nowMs())
      const from = asked.from === undefined ? monthOf(to) : new Date(asked.from)
      if (from >= to) throw faulty([{ path: 'query.to', message: 'is not after from' }])
      const found = await readMargins(db, { organisationId, projectId, from, to, by: new Set(by) })
      return { from: from.toISOString(), to: to.toISOString(), by, margins: found.map(marginView) }
    },
  )
}

function monthOf(moment: Date): Date {
  return new Date(Date.UTC(moment.getUTCFullYear(), moment.getUTCMonth(), 1))
}

function marginView({ currency, sell, margin, billed, ...rest }: MarginSums) {
  return {
    ...rest,
    sell: toAmount(sell, currency),
    cost: toAmount(sell - margin, currency),
    margin: toAmount(margin, currency),
    billed: Object.entries(billed).map(([other, nano]) => toAmount(nano, other)),
  }
}
