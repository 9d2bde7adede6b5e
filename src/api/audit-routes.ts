import { auditListSchema, auditQuerySchema } from '#contracts/api-audit.ts'
import { listAudit } from '#db/audit.ts'
import { callerOfRequest, tenantFor, tenantDb } from './access.ts'
import type { Api } from './api-deps.ts'
import { pageAsked, pageOf } from './page.ts'

/** Who changed what. Operators only. */
export function auditRoutes(app: Api): void {
  app.get(
    '/audit',
    {
      config: { access: 'operator', problems: ['not_found'] },
      schema: {
        tags: ['Audit'],
        summary: 'Administrative changes, newest first',
        description:
          'Each is written in the transaction of its change, and never changed or deleted. What is new has no `before`; ' +
          'what is gone has no `after`.',
        querystring: auditQuerySchema,
        response: { 200: auditListSchema },
      },
    },
    async (request) => {
      const db = tenantDb(request)
      const { limit: _limit, cursor: _cursor, order: _order, ...filter } = request.query
      if (filter.projectId !== undefined) await tenantFor(db, request, { noun: 'project', id: filter.projectId })
      const { organisationId } = callerOfRequest(request)
      const found = await listAudit(db, organisationId, { filter, page: pageAsked(request) })
      const { items, nextCursor } = pageOf(request, found)
      return { events: items, nextCursor }
    },
  )
}
