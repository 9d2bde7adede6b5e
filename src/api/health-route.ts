import { healthSchema } from '#contracts/api-health.ts'
import { isReachable } from '#db/database-health.ts'
import type { Api, ApiDeps } from './api-deps.ts'

/** Both are asked at most this long: a health check that hangs is no answer. */
const LIMIT_MS = 2_000

/** For whoever watches the process; needs no key, so simultaneous requests share one check. */
export function healthRoute(app: Api, deps: ApiDeps): void {
  let checking: Promise<readonly [boolean, boolean]> | undefined

  app.get(
    '/healthz',
    {
      schema: {
        tags: ['Health'],
        summary: 'Whether the database and Temporal can be reached',
        description: 'Without Temporal requests are still answered (`degraded`): workflows start once it is back.',
        response: { 200: healthSchema, 503: healthSchema.describe('The database cannot be reached.') },
      },
    },
    async (_request, reply) => {
      checking ??= Promise.all([within(isReachable(deps.db)), within(deps.isTemporalUp())]).finally(() => {
        checking = undefined
      })
      const [database, temporal] = await checking
      reply.code(database ? 200 : 503)
      return {
        status: !database ? ('down' as const) : temporal ? ('ok' as const) : ('degraded' as const),
        database: database ? ('up' as const) : ('down' as const),
        temporal: temporal ? ('up' as const) : ('down' as const),
      }
    },
  )
}

async function within(check: Promise<boolean>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), LIMIT_MS)
  })
  try {
    return await Promise.race([check.catch(() => false), late])
  } finally {
    clearTimeout(timer)
  }
}
