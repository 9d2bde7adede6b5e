import { pageQuerySchema } from '#contracts/api-page.ts'
import {
  keyListSchema,
  keyRequestSchema,
  newKeySchema,
  projectChangeSchema,
  projectListSchema,
  projectRequestSchema,
  projectSchema,
  type KeyView,
  type ProjectView,
} from '#contracts/api-project.ts'
import { Problem } from '#contracts/codes.ts'
import { createKey, listKeys, revokeKey, type ApiKey } from '#db/api-key.ts'
import { createProject, getProject, listProjects, setMaxRunningRuns, type Project } from '#db/project.ts'
import { randomBytes } from 'node:crypto'
import { z } from 'zod'
import { callerOfRequest, notFound, tenantFor } from './access.ts'
import type { Api, ApiDeps } from './api-deps.ts'
import { answerPost } from './idempotency.ts'
import { cursorId, pageOf } from './page.ts'

const SECRET_BYTES = 32
const idParams = z.object({ id: z.string() })
const tags = ['Projects and keys']

/** A new secret. Operators, projects and external runs are told apart at a glance. */
export function makeSecret(kind: 'op' | 'pk' | 'rk'): string {
  return `purser_${kind}_${randomBytes(SECRET_BYTES).toString('base64url')}`
}

export function projectRoutes(app: Api, deps: ApiDeps): void {
  const { db, nowMs, poke } = deps

  app.post(
    '/projects',
    {
      config: { access: 'operator', problems: ['already_exists'] },
      schema: { tags, summary: 'Make a project', body: projectRequestSchema, response: { 201: projectSchema } },
    },
    (request, reply) =>
      answerPost(db, { request, reply, schema: projectSchema }, async (trx) => {
        const { name } = request.body
        const project = await createProject(trx, callerOfRequest(request).organisationId, { name, nowMs: nowMs() })
        if (!project) throw new Problem('already_exists', `There is a project named ${name} already.`)
        return { status: 201, body: projectView(project) }
      }),
  )

  app.get(
    '/projects',
    {
      config: { access: 'operator' },
      schema: {
        tags,
        summary: 'Projects, newest first',
        querystring: pageQuerySchema,
        response: { 200: projectListSchema },
      },
    },
    async (request) => {
      const { limit, cursor } = request.query
      const found = await listProjects(db, callerOfRequest(request).organisationId, { limit, before: cursorId(cursor) })
      const { items, nextCursor } = pageOf(found, limit)
      return { projects: items.map(projectView), nextCursor }
    },
  )

  app.get(
    '/projects/:id',
    {
      config: { access: 'any' },
      schema: { tags, summary: 'A project', params: idParams, response: { 200: projectSchema } },
    },
    async (request) => {
      const { id } = request.params
      await tenantFor(db, request, { noun: 'project', id })
      const project = await getProject(db, callerOfRequest(request).organisationId, id)
      if (!project) throw notFound('project', id)
      return projectView(project)
    },
  )

  app.patch(
    '/projects/:id',
    {
      config: { access: 'operator' },
      schema: {
        tags,
        summary: 'Change how many runs of a project may be at work at the same time',
        params: idParams,
        body: projectChangeSchema,
        response: { 200: projectSchema },
      },
    },
    async (request) => {
      const scope = await tenantFor(db, request, { noun: 'project', id: request.params.id })
      const project = await setMaxRunningRuns(db, scope, request.body.maxRunningRuns)
      poke()
      return projectView(project)
    },
  )
}

export function keyRoutes(app: Api, deps: ApiDeps): void {
  const { db, nowMs } = deps

  app.post(
    '/projects/:id/keys',
    {
      config: { access: 'operator' },
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
      answerPost(db, { request, reply, schema: newKeySchema }, async (trx) => {
        const scope = await tenantFor(trx, request, { noun: 'project', id: request.params.id })
        const secret = makeSecret('pk')
        const { organisationId } = callerOfRequest(request)
        const { name, constraints } = request.body
        const key = await createKey(trx, scope, { organisationId, name, constraints, secret, nowMs: nowMs() })
        const body = keyView(key)
        const remedy = 'The secret was answered once and is not kept. If it is lost, revoke this key and make another.'
        return { status: 201, body: { ...body, secret }, kept: { ...body, remedy } }
      }),
  )

  app.get(
    '/projects/:id/keys',
    {
      config: { access: 'operator' },
      schema: { tags, summary: 'Keys of a project, newest first', params: idParams, response: { 200: keyListSchema } },
    },
    async (request) => {
      const scope = await tenantFor(db, request, { noun: 'project', id: request.params.id })
      const keys = await listKeys(db, scope)
      return { keys: keys.map(keyView) }
    },
  )

  app.delete(
    '/keys/:id',
    {
      config: { access: 'operator' },
      schema: {
        tags,
        summary: 'Revoke a key of a project',
        description:
          'At once and for good. Its open event streams end within 15 seconds. Money set aside for its calls goes home.',
        params: idParams,
        response: { 204: z.undefined().describe('It opens nothing any more.') },
      },
    },
    async (request, reply) => {
      const { id } = request.params
      const scope = await tenantFor(db, request, { noun: 'api_key', id })
      const isKnown = await db.transaction().execute((trx) => revokeKey(trx, scope, id))
      if (!isKnown) throw notFound('key', id)
      reply.code(204)
    },
  )
}

function projectView({ id, name, maxRunningRuns, createdAt }: Project): ProjectView {
  return { id, name, maxRunningRuns, createdAt: createdAt.toISOString() }
}

function keyView(key: ApiKey): KeyView {
  const { createdAt, revokedAt, ...rest } = key
  return { ...rest, createdAt: createdAt.toISOString(), revokedAt: revokedAt?.toISOString() ?? null }
}
