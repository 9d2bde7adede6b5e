import { pageQuerySchema } from '#contracts/api-page.ts'
import {
  projectChangeSchema,
  projectListSchema,
  projectRequestSchema,
  projectSchema,
  type ProjectView,
} from '#contracts/api-project.ts'
import { Problem } from '#contracts/codes.ts'
import { createProject, getProject, listProjects, changeProject, type Project } from '#db/project.ts'
import { z } from 'zod'
import { callerOfRequest, notFound, tenantFor, tenantDb } from './access.ts'
import type { Api, RouteDeps } from './api-deps.ts'
import { answerChange, answerPost } from './idempotency.ts'
import { pageAsked, pageOf } from './page.ts'

const idParams = z.object({ id: z.string() })
const tags = ['Projects and keys']

export function projectRoutes(app: Api, deps: RouteDeps): void {
  const { nowMs } = deps

  app.post(
    '/projects',
    {
      config: { access: 'operator', versioned: 'project', audit: 'project.create', problems: ['already_exists'] },
      schema: { tags, summary: 'Make a project', body: projectRequestSchema, response: { 201: projectSchema } },
    },
    (request, reply) =>
      answerPost({ request, reply, schema: projectSchema }, async (trx) => {
        const { name } = request.body
        const project = await createProject(trx, callerOfRequest(request).organisationId, { name, nowMs: nowMs() })
        if (!project) throw new Problem('already_exists', `There is a project named ${name} already.`)
        return { status: 201, body: projectView(project), audit: { projectId: project.id } }
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
      const db = tenantDb(request)
      const found = await listProjects(db, callerOfRequest(request).organisationId, pageAsked(request))
      const { items, nextCursor } = pageOf(request, found)
      return { projects: items.map(projectView), nextCursor }
    },
  )

  app.get(
    '/projects/:id',
    {
      config: { access: 'any', versioned: 'project' },
      schema: { tags, summary: 'A project', params: idParams, response: { 200: projectSchema } },
    },
    async (request) => {
      const db = tenantDb(request)
      const { id } = request.params
      await tenantFor(db, request, { noun: 'project', id })
      const project = await getProject(db, callerOfRequest(request).organisationId, id)
      if (!project) throw notFound('project', id)
      return projectView(project)
    },
  )

  projectChangeRoutes(app, deps)
}

function projectChangeRoutes(app: Api, { poke }: RouteDeps): void {
  app.patch(
    '/projects/:id',
    {
      config: { access: 'operator', versioned: 'project', audit: 'project.change' },
      schema: {
        tags,
        summary:
          'Change how many runs of a project may be at work at the same time, or how its prompts and answers are kept',
        params: idParams,
        body: projectChangeSchema,
        response: { 200: projectSchema },
      },
    },
    async (request, reply) => {
      const { id } = request.params
      const project = await answerChange({ request, reply }, async (trx) => {
        const scope = await tenantFor(trx, request, { noun: 'project', id })
        const before = await getProject(trx, callerOfRequest(request).organisationId, id)
        const changed = await changeProject(trx, scope, request.body)
        return { status: 200, body: projectView(changed), audit: { before: before && projectView(before) } }
      })
      poke()
      return project
    },
  )
}

function projectView({ createdAt, ...project }: Project): ProjectView {
  return { ...project, createdAt: createdAt.toISOString() }
}
