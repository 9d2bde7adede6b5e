import { constraintsOf } from '#contracts/constraints.ts'
import { bearerKey, isKey } from '#contracts/key-secret.ts'
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
    const caller = secret === undefined ? undefined : await keys.callerOf(secret)
    if (!caller) {
      const isMissing = authorization === undefined && apiKey === undefined
      const what = isMissing ? 'The request carries no API key.' : 'This API key is unknown or revoked.'
      throw new Refusal('invalid_api_key', what, {
        remedy: 'Send a key of a project, purser_pk_…, or of an external run, purser_rk_….',
      })
    }
    const { projectId } = caller
    if (projectId === null) {
      throw new Refusal('key_not_allowed', 'An operator key pays for nothing.', {
        remedy: 'Make a key of a project with POST /api/v1/projects/{id}/keys.',
      })
    }
    if (caller.run?.isOver) throw new Refusal('envelope_closed', 'The run of this key is over.')
    const bounds = caller.run ? (await engine.shelf.run(caller.run.id)).bounds : constraintsOf(null, caller.constraints)
    request.payingCaller = { ...caller, projectId, bounds }
  })
}

/** Who asks and pays. */
export function callerOfRequest(request: FastifyRequest): ProjectCaller {
  if (!request.payingCaller) throw new Error('a route without a key asked who pays')
  return request.payingCaller
}
