import type { FailedKeys } from '#calls/failed-keys.ts'
import { Problem, PROBLEMS } from '#contracts/codes.ts'
import { bearerKey } from '#contracts/key-secret.ts'
import type { KeyScope } from '#contracts/names.ts'
import type { KeyHolder } from '#db/api-key.ts'
import { callerOf, mayAskFrom } from '#db/key-holder.ts'
import type { KeyUses } from '#db/key-use.ts'
import type { Scope } from '#db/database.ts'
import { runsInstallation } from '#db/organisation.ts'
import type { Database } from '#db/schema.ts'
import { asTenant } from '#db/tenant-db.ts'
import { tenantOf, type Noun } from '#db/tenant.ts'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { Kysely } from 'kysely'
import { z } from 'zod'

/** Whose key may call a route. `any`: a project for what is its own, an operator for the whole organisation. */
export type Access = 'operator' | 'project' | 'any'

declare module 'fastify' {
  interface FastifyContextConfig {
    access?: Access
    /** What a key needs for it. Left out: `read` for reading, else `runs` of a project's key and `admin` of an operator's. */
    scope?: KeyScope
    /** It changes what serves all organisations: only operators of the one that the installation is configured with may. */
    changesInstallation?: true
    /** It reads the run that its path names: the key of an external run may read its own. */
    readsRun?: true
  }
  interface FastifyRequest {
    caller: KeyHolder | null
    /** The project of what the request names, once that is known. */
    tenant: Scope | null
    /** The database as the caller sees it. */
    tenantDb: Kysely<Database> | null
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
export function requireKey(
  app: FastifyInstance,
  { db, uses, failed }: { readonly db: Kysely<Database>; readonly uses: KeyUses; readonly failed: FailedKeys },
): void {
  app.decorateRequest('caller', null)
  app.decorateRequest('tenant', null)
  app.decorateRequest('tenantDb', null)
  app.addHook('onRequest', async (request) => {
    if (failed.isTooMany(request)) throw tooManyFailures()
    const holder = await holderFromHeader(db, request.headers.authorization)
    failed.noteGood(request)
    refuseAddress(holder, request.ip)
    const { access = 'operator' } = request.routeOptions.config
    if (holder.run) checkRunKey(holder.run, request)
    if (access === 'operator' && holder.projectId !== null) {
      throw new Problem('forbidden', 'This needs an operator key.', { remedy: 'Ask an operator of the organisation.' })
    }
    if (access === 'project' && holder.projectId === null) {
      throw new Problem('forbidden', 'This needs the key of a project.', {
        remedy: 'Make one with POST /api/v1/projects/{id}/keys.',
      })
    }
    refuseScope(holder, request)
    uses.note(holder.keyId)
    request.caller = holder
    const { organisationId, projectId } = holder
    request.tenantDb = asTenant(db, {
      organisationId,
      projectId,
      purpose: request.method === 'GET' ? 'read' : 'change',
    })
    if (
      request.routeOptions.config.changesInstallation &&
      !(await runsInstallation(request.tenantDb, organisationId))
    ) {
      throw new Problem(
        'forbidden',
        'This serves all organisations, and is changed by the operators of the installation.',
        {
          remedy: 'Ask an operator of the organisation that the installation is configured with.',
        },
      )
    }
  })
  app.addHook('onResponse', async (request, reply) => {
    if (reply.statusCode === PROBLEMS.unauthorized.status) failed.noteFailure(request)
  })
}

function tooManyFailures(): Problem {
  return new Problem('too_many_failures', 'Too many requests of this address carried no good key.', {
    remedy: 'Send a key that is good, after Retry-After seconds.',
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

async function holderFromHeader(db: Kysely<Database>, header: string | undefined): Promise<KeyHolder> {
  const secret = bearerKey(header)
  if (secret === undefined) {
    const what = header === undefined ? 'The request carries no API key.' : UNKNOWN_KEY
    throw new Problem('unauthorized', what, { remedy: 'Send the header Authorization: Bearer purser_…' })
  }
  const found = await callerOf(db, secret)
  if (found.ok) return found.holder
  throw found.reason === 'expired'
    ? new Problem('unauthorized', 'This API key has expired.', { remedy: 'Ask an operator for another one.' })
    : new Problem('unauthorized', UNKNOWN_KEY, { remedy: 'Send the header Authorization: Bearer purser_…' })
}

const UNKNOWN_KEY = 'This API key is unknown or revoked.'

function refuseAddress(holder: KeyHolder, ip: string): void {
  if (!mayAskFrom(holder, ip)) {
    throw new Problem('forbidden', `This key may not be used from ${ip.slice(0, MAX_ECHO)}.`, {
      remedy: 'Ask from an address that it was made for, or ask an operator for another key.',
    })
  }
}

/** Reading needs `read`; what changes anything, `runs` of a project's key and `admin` of an operator's. */
function refuseScope(holder: KeyHolder, { method, routeOptions }: FastifyRequest): void {
  const change = holder.projectId === null ? 'admin' : 'runs'
  const scope: KeyScope = routeOptions.config.scope ?? (method === 'GET' ? 'read' : change)
  if (holder.scopes.includes(scope)) return
  throw new Problem('forbidden', `This key was made without the scope ${scope}.`, {
    remedy: `Use a key with the scope ${scope}: an operator can make one.`,
  })
}

/** Who asks; every route behind `requireKey` has one. */
export function callerOfRequest(request: FastifyRequest): KeyHolder {
  if (!request.caller) throw new Error('a route without a key asked who calls')
  return request.caller
}

/** The database as who asks sees it: the only one that a route behind `requireKey` has. */
export function tenantDb(request: FastifyRequest): Kysely<Database> {
  if (!request.tenantDb) throw new Error('a route without a key asked for the database of who calls')
  return request.tenantDb
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
  request.tenant = scope
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
