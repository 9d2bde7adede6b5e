import { DOCUMENT_PATH } from '#api/documentation.ts'
import { makeOperator, makeTenant, startTestRun, useApi } from '#test/support/api.ts'
import { names, routes } from '#test/support/addresses.ts'
import { useGateway } from '#test/support/gateway.ts'
import type { FastifyInstance, RouteOptions } from 'fastify'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { expect, onTestFinished, test } from 'vitest'
import { z } from 'zod'

/** Addresses outside of the management API, and why none of them can name what is somebody else's. */
const OUTSIDE: Readonly<Record<string, string>> = {
  '/healthz': 'names nothing',
  '/api/openapi.json': 'names nothing',
  '/api/docs': 'files of the documentation',
  '/v1/chat/completions': 'models are of the installation; ids in messages are the texts of the client',
  '/v1/responses': 'the same; to go on from a stored response is refused',
  '/v1/responses/:id': 'no response is kept: always the same refusal',
  '/v1/embeddings': 'models are of the installation',
  '/v1/messages': 'models are of the installation; ids in messages are the texts of the client',
  '/v1/messages/count_tokens': 'the same',
  '/v1/models': 'models are of the installation',
  '/v1/models/:model': 'models are of the installation',
  '/chat/completions': 'always the same refusal: the base URL lacks /v1',
  '/responses': 'the same',
  '/embeddings': 'the same',
  '/messages': 'the same',
  '/messages/count_tokens': 'the same',
  '/models': 'the same',
  '/models/:model': 'the same',
}

/** By what lists are narrowed: what is not there leaves nothing. */
const FILTERS = [
  'GET /api/v1/audit keyId',
  'GET /api/v1/calls keyId',
  'GET /api/v1/calls runId',
  'GET /api/v1/deposit-requests projectId',
  'GET /api/v1/limits subjectId',
]

const documentSchema = z.object({
  paths: z.record(
    z.string(),
    z.record(
      z.string(),
      z.object({
        parameters: z.array(z.object({ in: z.string(), name: z.string() })).default([]),
        requestBody: z.unknown().optional(),
      }),
    ),
  ),
  components: z.object({ schemas: z.record(z.string(), z.unknown()) }),
})

/** What each server registers from now on, told by Fastify itself. */
function hearRoutes(): ReadonlyMap<FastifyInstance, readonly RouteOptions[]> {
  const heard = new Map<FastifyInstance, RouteOptions[]>()
  const hear = (message: unknown) => {
    const { fastify } = z.object({ fastify: z.custom<FastifyInstance>() }).parse(message)
    const routesOfIt: RouteOptions[] = []
    heard.set(fastify, routesOfIt)
    fastify.addHook('onRoute', (route) => void routesOfIt.push(route))
  }
  subscribe('fastify.initialization', hear)
  onTestFinished(() => void unsubscribe('fastify.initialization', hear))
  return heard
}

test('every address of the server is in the document that the walk is compared with, or names nobody’s', async () => {
  const heard = hearRoutes()
  const { api } = await useGateway()
  const { paths } = documentSchema.parse((await api.app.inject({ method: 'GET', url: DOCUMENT_PATH })).json())
  const known = new Set(
    Object.entries(paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method.toUpperCase()} ${path.replaceAll(/\{(\w+)\}/g, ':$1')}`),
    ),
  )
  const found = heard.get(api.app) ?? []
  expect(found.length).toBeGreaterThan(80)
  for (const { method, url } of found) {
    const outside = Object.keys(OUTSIDE).some((path) => url === path || (path === '/api/docs' && url.startsWith(path)))
    if (outside) continue
    for (const verb of [method].flat()) expect([...known], `${verb} ${url}`).toContain(`${verb} ${url}`)
  }
})

test('the walk knows every id that is not in an address', async () => {
  const api = await useApi()
  const document = documentSchema.parse((await api.app.inject({ method: 'GET', url: DOCUMENT_PATH })).json())
  const walked = new Set(
    [...routes.operator(names), ...routes.project(names)].flatMap(([method, path, body]) => {
      const [address, query] = path.split('?')
      const fields = [...new URLSearchParams(query).keys(), ...Object.keys(body ?? {})]
      return fields.map((field) => `${method} /api/v1${address} ${field}`)
    }),
  )
  const fields = Object.entries(document.paths)
    .filter(([path]) => path.startsWith('/api/v1'))
    .flatMap(([path, methods]) =>
      Object.entries(methods).flatMap(([method, { parameters, requestBody }]) => {
        const queries = parameters.filter((parameter) => parameter.in === 'query').map(({ name }) => name)
        const inBody = [...propertiesOf(requestBody, document.components.schemas)]
        return [...queries, ...inBody].map((name) => `${method.toUpperCase()} ${path} ${name}`)
      }),
    )
  const ids = fields.filter((field) => / (\w+Ids?|ids?|project)$/.test(field))
  expect(ids.length).toBeGreaterThan(10)
  expect([...new Set(ids)].filter((field) => !walked.has(field)).sort()).toEqual(FILTERS)
})

test('a list that is narrowed to somebody else’s is as empty as one narrowed to what never was', async () => {
  const api = await useApi()
  const theirs = await makeTenant(api)
  const run = await startTestRun(api, theirs, { limits: { calls: 5 } })
  const stranger = await makeOperator(api.db, 'another')
  const me = await makeTenant(api)
  for (const [key, path, list] of [
    [stranger, `/audit?keyId=${theirs.keyId}`, 'events'],
    [stranger, `/limits?subjectId=${run}`, 'limits'],
    [stranger, `/deposit-requests?projectId=${theirs.projectId}`, 'depositRequests'],
    [me.key, `/calls?keyId=${theirs.keyId}`, 'calls'],
    [me.key, `/calls?runId=${run}`, 'calls'],
    [me.key, `/limits?subjectId=${run}`, 'limits'],
  ] as const) {
    const { status, body } = await api.ask('GET', `/api/v1${path}`, { key })
    expect([path, status, body]).toEqual([path, 200, { [list]: [], nextCursor: null }])
  }
})

/** Names of all properties of a schema, however deep. */
function propertiesOf(schema: unknown, schemas: Readonly<Record<string, unknown>>): ReadonlySet<string> {
  const found = new Set<string>()
  const looked = new Set<unknown>()
  const look = (value: unknown): void => {
    if (typeof value !== 'object' || value === null || looked.has(value)) return
    looked.add(value)
    for (const [name, part] of Object.entries(value)) {
      if (name === '$ref' && typeof part === 'string') look(schemas[part.split('/').at(-1) ?? ''])
      if (name === 'properties') for (const property of Object.keys(part ?? {})) found.add(property)
      look(part)
    }
  }
  look(schema)
  return found
}
