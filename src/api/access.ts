import { Problem } from '#contracts/codes.ts'
import { bearerKey } from '#contracts/key-secret.ts'
import { callerOf, type KeyHolder } from '#db/api-key.ts'
import type { Scope } from '#db/database.ts'
import type { Database } from '#db/schema.ts'
import { tenantOf, type Noun } from '#db/tenant.ts'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { Kysely } from 'kysely'
import { z } from 'zod'

/** Whose key may call a route. `any`: a project for what is its own, an operator for the whole organisation. */
export type Access = 'operator' | 'project' | 'any'

declare module 'fastify' {
  interface FastifyContextConfig {
    access?: Access
    /** It reads the run that its path names: the key of an external run may read its own. */
    readsRun?: true
  }
  interface FastifyRequest {
    caller: KeyHolder | null
  }
}

const UUID = /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/i

const NAMES = {
  project: 'project',
  account: 'account',
  wallet: 'wallet',
  deposit: 'deposit',
  run: 'run',
  call: 'call',
  corpus: 'corpus',
  dataset: 'dataset',
  api_key: 'key',
  schedule: 'schedule',
  webhook: 'webhook',
  delivery: 'delivery',
  deposit_request: 'deposit request',
} as const

/** Checks the key of every request of this scope before its body is read. */
export function requireKey(app: FastifyInstance, db: Kysely<Database>): void {
  app.decorateRequest('caller', null)
  app.addHook('onRequest', async (request) => {
    const caller = await callerFromHeader(db, request.headers.authorization)
    const { access = 'operator' } = request.routeOptions.config
    if (caller.run) checkRunKey(caller.run, request)
    if (access === 'operator' && caller.projectId !== null) {
      throw new Problem('forbidden', 'This needs an operator key.', { remedy: 'Ask an operator of the organisation.' })
    }
    if (access === 'project' && caller.projectId === null) {
      throw new Problem('forbidden', 'This needs the key of a project.', {
        remedy: 'Make one with POST /api/v1/projects/{id}/keys.',
      })
    }
    request.caller = caller
  })
}

const runParams = z.object({ id: z.string() })

/** The key of an external run is for the gateway: here it reads that run, as long as that is not over, and no other. */
function checkRunKey(run: NonNullable<KeyHolder['run']>, { params, routeOptions }: FastifyRequest): void {
  if (routeOptions.config.readsRun !== true || run.isOver) {
    const what = run.isOver ? 'The run of this key is over.' : 'The key of a run may only read that run here.'
    throw new Problem('forbidden', what, { remedy: 'Use the key of a project.' })
  }
  const { id } = runParams.parse(params)
  if (id !== run.id) throw notFound('run', id)
}

async function callerFromHeader(db: Kysely<Database>, header: string | undefined): Promise<KeyHolder> {
  const secret = bearerKey(header)
  const caller = secret === undefined ? undefined : await callerOf(db, secret)
  if (caller) return caller
  const what = header === undefined ? 'The request carries no API key.' : 'This API key is unknown or revoked.'
  throw new Problem('unauthorized', what, { remedy: 'Send the header Authorization: Bearer purser_…' })
}

/** Who asks; every route behind `requireKey` has one. */
export function callerOfRequest(request: FastifyRequest): KeyHolder {
  if (!request.caller) throw new Error('a route without a key asked who calls')
  return request.caller
}

/** The tenant of a request with a project's key. */
export function projectOf(request: FastifyRequest): Scope {
  const { projectId } = callerOfRequest(request)
  if (projectId === null) throw new Error('a route for operators asked for the project')
  return { projectId }
}

/**
 * The tenant of what an id names, if the caller may see it.
 *
 * @throws Problem `not_found`, the same for a foreign id, an unknown one and one that is no id at all
 */
export async function tenantFor(
  db: Kysely<Database>,
  request: FastifyRequest,
  thing: { readonly noun: Noun; readonly id: string },
): Promise<Scope> {
  const scope = isId(thing.id) ? await tenantOf(db, callerOfRequest(request), thing) : undefined
  if (!scope) throw notFound(NAMES[thing.noun], thing.id)
  return scope
}

export function isId(text: string): boolean {
  return UUID.test(text)
}

/** Most characters of an unknown id that are repeated to the caller. */
const MAX_ECHO = 60

export function notFound(what: string, id: string): Problem {
  return new Problem('not_found', `There is no ${what} ${id.slice(0, MAX_ECHO)}.`)
}
