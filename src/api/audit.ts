import { AUDIT_ACTIONS, type AuditAction } from '#contracts/names.ts'
import { writeAudit } from '#db/audit.ts'
import type { Effect } from '#db/idempotency.ts'
import type { Database } from '#db/schema.ts'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { Kysely } from 'kysely'
import { z } from 'zod'
import { callerOfRequest } from './access.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** What the audit log calls an operator's use of this route. Every route that operators may change something by has one. */
    audit?: AuditAction | 'changes_nothing'
  }
  interface FastifyRequest {
    isAudited: boolean
  }
}

/** What is told of a change besides what its answer says. */
interface AuditFacts {
  /** Left out: the project of what the request named, or of the answer. */
  readonly projectId?: string | null
  /** Left out: the id of the answer, or of the path. */
  readonly target?: string
  /** Left out: it is new. */
  readonly before?: unknown
  /** Left out: the answer, as it is kept. */
  readonly after?: unknown
}

/** What a route did: its answer, and what the audit log says of it where the answer does not. */
export interface Change<Body> extends Effect<Body> {
  readonly audit?: AuditFacts
}

/**
 * No route is forgotten: one by which operators may change something does not start without its word for the audit log, and
 * does not answer unless that was written.
 */
export function auditChanges(app: FastifyInstance): void {
  app.decorateRequest('isAudited', false)
  app.addHook('onRoute', ({ method, url, config, schema }) => {
    if (method === 'GET' || method === 'HEAD' || config?.access === 'project') return
    if (config?.audit === undefined) {
      throw new Error(`${String(method)} ${url} is open to operators: say in config.audit what the audit log calls it`)
    }
    // For who reads the document, and for the test that walks it.
    Object.assign(schema ?? {}, { 'x-audit': config.audit })
  })
  app.addHook('onSend', async (request, reply) => {
    if (reply.statusCode >= 300 || actionOf(request) === undefined || request.isAudited) return
    throw new Error(`${request.method} ${request.routeOptions.url ?? ''} changed something and wrote nothing down`)
  })
}

/** What the audit log calls a request; undefined where there is nothing to write. */
function actionOf({ caller, routeOptions, method }: FastifyRequest): AuditAction | undefined {
  if (!caller || caller.projectId !== null || method === 'GET') return undefined
  return AUDIT_ACTIONS.find((action) => action === routeOptions.config.audit)
}

/** Writes an operator's change down, in its transaction. */
export async function auditChange(
  trx: Kysely<Database>,
  request: FastifyRequest,
  change: Change<unknown>,
): Promise<void> {
  const action = actionOf(request)
  if (action === undefined) return
  const answer = change.kept ?? change.body
  const named = namedBy.safeParse(answer).data
  const { audit = {} } = change
  const { organisationId, keyId } = callerOfRequest(request)
  await writeAudit(trx, {
    organisationId,
    keyId,
    action,
    projectId:
      audit.projectId !== undefined ? audit.projectId : (request.tenant?.projectId ?? named?.projectId ?? null),
    target: audit.target ?? named?.id ?? idInPath.safeParse(request.params).data?.id ?? null,
    before: audit.before ?? null,
    after: audit.after !== undefined ? audit.after : (answer ?? null),
  })
  request.isAudited = true
}

const namedBy = z.looseObject({ id: z.string().optional(), projectId: z.string().nullish() })
const idInPath = z.looseObject({ id: z.string() })
