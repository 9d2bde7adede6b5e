import { callListSchema, callQuerySchema } from '#contracts/api-call.ts'
import { listCalls } from '#db/call-list.ts'
import { tenantDb, tenantFor } from './access.ts'
import type { Api } from './api-deps.ts'
import { isMomentAndId, pageAsked, pageFound } from './page.ts'
import { projectToList } from './run-read-routes.ts'

/** All calls of a project. */
export function callListRoutes(app: Api): void {
  app.get(
    '/calls',
    {
      config: { access: 'any', problems: ['not_found'] },
      schema: {
        tags: ['Calls'],
        summary: 'The calls of a project, in time',
        description:
          'Of runs and of keys alike, with their attempts. `route`, `outcome` and `balanceClass` are those of one attempt. A ' +
          'filter that few calls fit has many looked at, unless it is `keyId` or `runId`: give `from` and `to` with it.',
        querystring: callQuerySchema,
        response: { 200: callListSchema },
      },
    },
    async (request) => {
      const db = tenantDb(request)
      const { projectId, limit: _limit, order: _order, cursor: _cursor, ...filter } = request.query
      const page = pageAsked(request, isMomentAndId)
      const scope = await tenantFor(db, request, { noun: 'project', id: projectToList(request, projectId) })
      const found = await listCalls(db, scope, { filter, page })
      const { items, nextCursor } = pageFound(request, found, ({ at, id }) => `${at}_${id}`)
      return { calls: items, nextCursor }
    },
  )
}
