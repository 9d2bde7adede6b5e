import { constraintsOf } from '#contracts/constraints.ts'
import { bearerKey, isKey } from '#contracts/key-secret.ts'
import type { KeyHolder } from '#db/api-key.ts'
import { mayAskFrom } from '#db/key-holder.ts'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { GatewayDeps } from './gateway-deps.ts'
import type { ProjectCaller } from './payer.ts'
import { Refusal } from './refusal.ts'

declare module 'fastify' {
  interface FastifyRequest {
    payingCaller: ProjectCaller | null
  }
}

/** Checks the key of every request of this scope before its body is read. */
export function requireProjectKey(app: FastifyInstance, { engine, keys }: Pick<GatewayDeps, 'engine' | 'keys'>): void {
  app.decorateRequest('payingCaller', null)
  app.addHook('onRequest', async (request) => {
    const { authorization, 'x-api-key': apiKey } = request.headers
    const secret = bearerKey(authorization) ?? (typeof apiKey === 'string' && isKey(apiKey) ? apiKey : undefined)
    const isMissing = authorization === undefined && apiKey === undefined
    const found = secret === undefined ? undefined : await keys.callerOf(secret)
    if (!found?.ok) throw noKey(isMissing ? 'missing' : (found?.reason ?? 'unknown'))
    const { holder } = found
    const projectId = payingProject(holder, request.ip)
    const bounds = holder.run ? (await engine.shelf.run(holder.run.id)).bounds : constraintsOf(null, holder.constraints)
    request.payingCaller = { ...holder, projectId, bounds }
  })
}

const NO_KEY = {
  missing: 'The request carries no API key.',
  unknown: 'This API key is unknown or revoked.',
  expired: 'This API key has expired.',
} as const

function noKey(reason: keyof typeof NO_KEY): Refusal {
  return new Refusal('invalid_api_key', NO_KEY[reason], {
    remedy: 'Send a key of a project, purser_pk_…, or of an external run, purser_rk_….',
  })
}

/** Most characters of an address that are repeated to the caller. */
const MAX_ECHO = 60

/** The project that pays. @throws Refusal when the key is not for this */
function payingProject(holder: KeyHolder, ip: string): string {
  const { projectId } = holder
  if (!mayAskFrom(holder, ip)) {
    throw new Refusal('key_not_allowed', `This key may not be used from ${ip.slice(0, MAX_ECHO)}.`, {
      remedy: 'Ask from an address that it was made for, or ask an operator for another key.',
    })
  }
  if (projectId === null) {
    throw new Refusal('key_not_allowed', 'An operator key pays for nothing.', {
      remedy: 'Make a key of a project with POST /api/v1/projects/{id}/keys.',
    })
  }
  if (!holder.scopes.includes('calls')) {
    throw new Refusal('key_not_allowed', 'This key was made without the scope calls.', {
      remedy: 'Use a key with the scope calls: an operator can make one.',
    })
  }
  if (holder.run?.isOver) throw new Refusal('envelope_closed', 'The run of this key is over.')
  return projectId
}

/** Who asks and pays. */
export function callerOfRequest(request: FastifyRequest): ProjectCaller {
  if (!request.payingCaller) throw new Error('a route without a key asked who pays')
  return request.payingCaller
}
