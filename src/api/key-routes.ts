import {
  keyChangeSchema,
  keyListSchema,
  keyQuerySchema,
  keyRequestSchema,
  keySchema,
  newKeySchema,
  operatorKeyRequestSchema,
  rotationRequestSchema,
  type KeyView,
} from '#contracts/api-key.ts'
import { Problem } from '#contracts/codes.ts'
import type { KeyScope } from '#contracts/names.ts'
import { createKey, getKey, listKeys, lockKey, renameKey, type ApiKey } from '#db/api-key.ts'
import { revokeKey, rotateKey, type Rotated } from '#db/key-end.ts'
import type { FastifyRequest } from 'fastify'
import { z } from 'zod'
import { callerOfRequest, isId, notFound, tenantFor, tenantDb } from './access.ts'
import type { Api, RouteDeps } from './api-deps.ts'
import type { Change } from './audit.ts'
import { answerChange, answerPost } from './idempotency.ts'
import { makeSecret } from './key-secret.ts'
import { pageAsked, pageOf } from './page.ts'
import { faulty } from './validation.ts'

const idParams = z.object({ id: z.string() })
const tags = ['Projects and keys']

export function keyRoutes(app: Api, deps: RouteDeps): void {
  const { nowMs } = deps

  app.post(
    '/projects/:id/keys',
    {
      config: { access: 'operator', audit: 'key.create' },
      schema: {
        tags,
        summary: 'Make a key of a project',
        description: 'The secret is answered once. A repeated request is answered without it.',
        params: idParams,
        body: keyRequestSchema,
        response: { 201: newKeySchema },
      },
    },
    (request, reply) =>
      answerPost({ request, reply, schema: newKeySchema }, async (trx) => {
        const { projectId } = await tenantFor(trx, request, { noun: 'project', id: request.params.id })
        const { organisationId, keyId: madeBy } = callerOfRequest(request)
        const { expiresAt, ...rights } = request.body
        const secret = makeSecret('pk')
        const whose = { organisationId, projectId, madeBy, expiresAt: momentToCome(expiresAt, nowMs()) }
        return shownOnce(await createKey(trx, { ...rights, ...whose, secret, nowMs: nowMs() }), secret)
      }),
  )

  app.get(
    '/projects/:id/keys',
    {
      config: { access: 'operator' },
      schema: {
        tags,
        summary: 'Keys of a project, newest first',
        params: idParams,
        querystring: keyQuerySchema,
        response: { 200: keyListSchema },
      },
    },
    async (request) => {
      const db = tenantDb(request)
      const { projectId } = await tenantFor(db, request, { noun: 'project', id: request.params.id })
      const { state } = request.query
      const { organisationId } = callerOfRequest(request)
      const keys = await listKeys(db, { organisationId, projectId }, { ...pageAsked(request), state })
      const { items, nextCursor } = pageOf(request, keys)
      return { keys: items.map(keyView), nextCursor }
    },
  )

  app.get(
    '/keys/:id',
    {
      config: { access: 'operator', versioned: 'key' },
      schema: { tags, summary: 'A key, without its secret', params: idParams, response: { 200: keySchema } },
    },
    async (request) => {
      const db = tenantDb(request)
      const { id } = request.params
      const key = isId(id) ? await getKey(db, callerOfRequest(request).organisationId, id) : undefined
      if (!key) throw notFound('key', id)
      return keyView(key)
    },
  )

  keyNameRoute(app)
  keyEndRoutes(app, deps)
}

function keyNameRoute(app: Api): void {
  app.patch(
    '/keys/:id',
    {
      config: { access: 'operator', versioned: 'key', audit: 'key.change' },
      schema: {
        tags,
        summary: 'Give a key another name',
        description: 'A revoked one too. What it opens is for good: another key has other rights.',
        params: idParams,
        body: keyChangeSchema,
        response: { 200: keySchema },
      },
    },
    (request, reply) =>
      answerChange({ request, reply }, async (trx) => {
        const { id } = request.params
        const before = isId(id) ? await lockKey(trx, callerOfRequest(request).organisationId, id) : undefined
        if (!before) throw notFound('key', id)
        const body = keyView(await renameKey(trx, before, request.body.name))
        return { status: 200, body, audit: { projectId: before.projectId, before: keyView(before) } }
      }),
  )
}

function keyEndRoutes(app: Api, { nowMs }: RouteDeps): void {
  app.post(
    '/keys/:id/rotate',
    {
      config: { access: 'operator', audit: 'key.rotate', problems: ['key_ended', 'key_rotated'] },
      schema: {
        tags,
        summary: 'Make a key that takes over from another one',
        description:
          'With the same rights, an envelope of its own, and the limits of the old one, in the same windows. The old ' +
          'secret works until the overlap is over; then its money goes home. Schedules are paid by the new key at once.',
        params: idParams,
        body: rotationRequestSchema,
        response: { 201: newKeySchema },
      },
    },
    (request, reply) =>
      answerPost({ request, reply, schema: newKeySchema }, async (trx) => {
        const { id } = request.params
        const { overlapSeconds, expiresAt } = request.body
        const { organisationId, keyId: madeBy } = callerOfRequest(request)
        const known = isId(id) ? await getKey(trx, organisationId, id) : undefined
        if (!known) throw notFound('key', id)
        refuseGift(request, known.scopes)
        const secret = makeSecret(known.projectId === null ? 'op' : 'pk')
        const order = { organisationId, keyId: id, secret, overlapSeconds, madeBy, nowMs: nowMs() }
        const rotated = await rotateKey(trx, { ...order, expiresAt: momentToCome(expiresAt, nowMs()) })
        if (!rotated.ok) throw notRotated(rotated, id)
        return shownOnce(rotated.key, secret, rotated.before)
      }),
  )

  app.delete(
    '/keys/:id',
    {
      config: { access: 'operator', versioned: 'key', audit: 'key.revoke', problems: ['last_operator'] },
      schema: {
        tags,
        summary: 'Revoke a key',
        description:
          'At once and for good. Its open event streams end within a second. Money set aside for its calls goes home.',
        params: idParams,
        response: { 204: z.undefined().describe('It opens nothing any more.') },
      },
    },
    (request, reply) =>
      answerChange({ request, reply }, async (trx) => {
        const { id } = request.params
        const { organisationId } = callerOfRequest(request)
        const revoked = isId(id) ? await revokeKey(trx, organisationId, id) : undefined
        if (!revoked || (!revoked.ok && revoked.reason === 'unknown')) throw notFound('key', id)
        if (!revoked.ok) {
          throw new Problem('last_operator', 'No other operator key makes changes and does not expire.', {
            remedy: 'Make one with POST /api/v1/keys first, or rotate this one.',
          })
        }
        const { before, after } = revoked
        const audit = { projectId: before.projectId, before: keyView(before), after: keyView(after) }
        return { status: 204, body: undefined, audit }
      }),
  )
}

/** Keys of the organisation's operators: of no project. */
export function operatorKeyRoutes(app: Api, { nowMs }: RouteDeps): void {
  app.post(
    '/keys',
    {
      config: { access: 'operator', audit: 'key.create' },
      schema: {
        tags,
        summary: 'Make an operator key of the organisation',
        description: 'The secret is answered once. A repeated request is answered without it.',
        body: operatorKeyRequestSchema,
        response: { 201: newKeySchema },
      },
    },
    (request, reply) =>
      answerPost({ request, reply, schema: newKeySchema }, async (trx) => {
        const { organisationId, keyId: madeBy } = callerOfRequest(request)
        const { expiresAt, ...rights } = request.body
        refuseGift(request, rights.scopes)
        const secret = makeSecret('op')
        const whose = { organisationId, projectId: null, madeBy, expiresAt: momentToCome(expiresAt, nowMs()) }
        return shownOnce(await createKey(trx, { ...rights, ...whose, secret, nowMs: nowMs() }), secret)
      }),
  )

  app.get(
    '/keys',
    {
      config: { access: 'operator' },
      schema: {
        tags,
        summary: 'Operator keys of the organisation, newest first',
        querystring: keyQuerySchema,
        response: { 200: keyListSchema },
      },
    },
    async (request) => {
      const db = tenantDb(request)
      const { state } = request.query
      const { organisationId } = callerOfRequest(request)
      const keys = await listKeys(db, { organisationId, projectId: null }, { ...pageAsked(request), state })
      const { items, nextCursor } = pageOf(request, keys)
      return { keys: items.map(keyView), nextCursor }
    },
  )
}

/** Nobody hands on the installation who does not have it: not by a new key, nor by the secret that follows another's. */
function refuseGift(request: FastifyRequest, scopes: readonly KeyScope[]): void {
  if (!scopes.includes('installation') || callerOfRequest(request).scopes.includes('installation')) return
  throw new Problem('forbidden', 'The scope installation is handed on with a key that has it.', {
    remedy: 'Ask an operator of the installation.',
  })
}

/** A new key with its secret, which is in no answer after this one. */
export function shownOnce(key: ApiKey, secret: string, before?: ApiKey): Change<z.output<typeof newKeySchema>> {
  const body = keyView(key)
  const remedy = 'The secret was answered once and is not kept. If it is lost, revoke this key and make another.'
  const audit = { after: body, ...(before && { target: before.id, before: keyView(before) }) }
  return { status: 201, body: { ...body, secret }, kept: { ...body, remedy }, audit }
}

function momentToCome(text: string | undefined, nowMs: number): Date | undefined {
  if (text === undefined) return undefined
  const moment = new Date(text)
  if (moment.getTime() > nowMs) return moment
  throw faulty([{ path: 'expiresAt', message: 'is not after now' }])
}

function notRotated({ reason }: Extract<Rotated, { readonly ok: false }>, id: string): Problem {
  switch (reason) {
    case 'unknown':
      return notFound('key', id)
    case 'ended':
      return new Problem('key_ended', 'The key is revoked or expired: it has no secret to take over from.', {
        remedy: 'Make another key.',
      })
    case 'of_run':
      return new Problem('key_ended', 'This is the key of an external run: it ends with it.', {
        remedy: 'End the run, and open another.',
      })
    case 'rotated':
      return new Problem('key_rotated', 'Another key takes over from this one already.', {
        remedy: 'Rotate that one, or revoke it first.',
      })
  }
}

function keyView({ scopes, allowedIps, createdAt, expiresAt, revokedAt, lastUsedAt, ...rest }: ApiKey): KeyView {
  return {
    ...rest,
    scopes: [...scopes],
    allowedIps: allowedIps && [...allowedIps],
    createdAt: createdAt.toISOString(),
    expiresAt: expiresAt?.toISOString() ?? null,
    revokedAt: revokedAt?.toISOString() ?? null,
    lastUsedAt: lastUsedAt?.toISOString() ?? null,
  }
}
