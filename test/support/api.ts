import { buildApi } from '#api/api.ts'
import type { ApiDeps } from '#api/api-deps.ts'
import { makeSecret } from '#api/key-secret.ts'
import type { AgentManifest } from '#contracts/agents.ts'
import { importCatalog } from '#db/catalog.ts'
import { connectDatabase } from '#db/database.ts'
import { bootstrapOrganisation } from '#db/organisation.ts'
import type { Database } from '#db/schema.ts'
import type { FastifyInstance } from 'fastify'
import type { Kysely } from 'kysely'
import { onTestFinished } from 'vitest'
import { z } from 'zod'
import { manifests } from '#workflows/manifests.ts'
import { testDeps } from './api-deps.ts'
import { checkerOf } from './openapi.ts'
import { createTestDatabase, type TestDatabase } from './postgres.ts'
import { testCatalog } from './world.ts'

export interface Ask {
  readonly key?: string | undefined
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>>
}

export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, unknown>>
  /** The JSON of the answer. */
  readonly body: Readonly<Record<string, unknown>>
}

export interface TestApi {
  readonly app: FastifyInstance
  readonly db: Kysely<Database>
  readonly database: TestDatabase
  readonly operatorKey: string
  /** How often a route said that a command waits. */
  readonly pokes: { count: number }
  /** Asks the API; fails when the answer is not what the OpenAPI document says of this route. */
  ask(method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE', path: string, request?: Ask): Promise<Answer>
  /** The value at a path of an answer that must succeed. */
  make(path: string, request: Ask): Promise<Answer['body']>
}

export interface Tenant {
  readonly projectId: string
  readonly keyId: string
  readonly key: string
  readonly walletId: string
}

/** An agent for tests: takes a text, and a corpus if it likes. */
const echo: AgentManifest = {
  name: 'echo',
  description: 'Says what it was told.',
  input: {
    type: 'object',
    properties: {
      text: { type: 'string', minLength: 1 },
      times: { type: 'integer', minimum: 1, maximum: 3, default: 1 },
      corpusId: { type: 'string', format: 'uuid' },
    },
    required: ['text'],
    additionalProperties: false,
  },
}

/** The real API on a database of its own; both go with the test. */
export async function useApi(
  options: Partial<
    Pick<
      ApiDeps,
      | 'agents'
      | 'trustedProxies'
      | 'failuresOfAddress'
      | 'allowsPrivateWebhooks'
      | 'approvalAbove'
      | 'stripeSecret'
      | 'secrets'
      | 'isTemporalUp'
      | 'nowMs'
      | 'log'
    >
  > & {
    /** Adds what another part of the server serves. */
    readonly extend?: (
      app: FastifyInstance,
      on: { readonly db: Kysely<Database>; readonly databaseUrl: string },
    ) => Promise<void>
  } = {},
): Promise<TestApi> {
  const database = await createTestDatabase()
  const db = connectDatabase({ url: database.appUrl, maxConnections: 8 })
  const pokes = { count: 0 }
  const { extend, agents = [], ...deps } = options
  const app = await buildApi(
    testDeps({
      db,
      agents: [...manifests, echo, ...agents],
      poke: () => {
        pokes.count += 1
      },
      fixedProviders: [{ name: 'sandbox', kind: 'openai', baseUrl: 'http://127.0.0.1:1/v1', keyHint: '…' }],
      ...deps,
    }),
  )
  onTestFinished(async () => {
    await app.close()
    await db.destroy().catch(() => {})
    await database.drop()
  })
  await importCatalog(db, testCatalog)
  await extend?.(app, { db, databaseUrl: database.appUrl })
  const operatorKey = await makeOperator(db, 'default')
  await app.ready()
  const ask = await askerOf(app)
  return {
    app,
    db,
    database,
    operatorKey,
    pokes,
    ask,
    async make(path, request) {
      const { status, body } = await ask('POST', path, request)
      if (status >= 300) throw new Error(`POST ${path} answered ${status}: ${JSON.stringify(body)}`)
      return body
    },
  }
}

/** The operator key of a new organisation. */
export async function makeOperator(db: Kysely<Database>, name: string): Promise<string> {
  const key = await bootstrapOrganisation(db, {
    name,
    nowMs: Date.now(),
    operatorKey: undefined,
    makeKey: () => makeSecret('op'),
  })
  if (key === undefined) throw new Error('the organisation has an operator already')
  return key
}

let tenants = 0

/** A project with a key and a wallet of 10 USD direct and 10 USD credit (or as many), made through the API. */
export async function makeTenant(api: TestApi, key = api.operatorKey, dollars = '10'): Promise<Tenant> {
  tenants += 1
  const project = await api.make('/api/v1/projects', { key, body: { name: `project ${tenants}` } })
  const projectId = text(project, 'id')
  const made = await api.make(`/api/v1/projects/${projectId}/keys`, { key, body: { name: 'first' } })
  const wallet = await api.make(`/api/v1/projects/${projectId}/wallet`, { key })
  const tenant = { projectId, keyId: text(made, 'id'), key: text(made, 'secret'), walletId: text(wallet, 'id') }
  for (const balanceClass of ['direct', 'credit']) {
    await api.make('/api/v1/deposits', {
      key,
      body: { walletId: tenant.walletId, balanceClass, amount: usd(dollars), reference: `first ${balanceClass}` },
    })
  }
  return tenant
}

export const usd = (amount: string) => ({ amount, currency: 'USD' })

/** A run that the API accepts, with changes. */
export function runBody(change: Readonly<Record<string, unknown>> = {}) {
  return {
    agent: 'echo',
    input: { text: 'hello' },
    model: 'steady',
    envelope: { pockets: [{ balanceClass: 'direct', amount: usd('1') }] },
    onExhausted: 'pause',
    ...change,
  }
}

export async function startTestRun(api: TestApi, tenant: Tenant, change = {}): Promise<string> {
  return text(await api.make('/api/v1/runs', { key: tenant.key, body: runBody(change) }), 'id')
}

/** A dataset of three people. */
export async function uploadDataset(api: TestApi, tenant: Tenant): Promise<string> {
  const response = await api.app.inject({
    method: 'POST',
    url: '/api/v1/datasets?name=people',
    headers: { authorization: `Bearer ${tenant.key}`, 'content-type': 'text/csv' },
    payload: 'name,city\nAda,London\nGrace,New York\nEdsger,Rotterdam\n',
  })
  return text(response.json(), 'id')
}

/** A string of an answer. */
export function text(body: Readonly<Record<string, unknown>>, name: string): string {
  return z.string().parse(body[name])
}

const jsonObject = z.record(z.string(), z.unknown())

/** Asks an API as a client does, and holds its answers against the document. */
export async function askerOf(app: FastifyInstance): Promise<TestApi['ask']> {
  const check = await checkerOf(app)
  return async (method, path, request = {}) => {
    const { key, body, headers } = request
    const response = await app.inject({
      method,
      url: path,
      headers: { ...(key !== undefined && { authorization: `Bearer ${key}` }), ...headers },
      ...(body !== undefined && {
        payload: JSON.stringify(body),
        headers: {
          'content-type': 'application/json',
          ...(key !== undefined && { authorization: `Bearer ${key}` }),
          ...headers,
        },
      }),
    })
    const parsed = response.body === '' ? {} : jsonObject.parse(JSON.parse(response.body))
    const type = response.headers['content-type']
    check({ method, path, status: response.statusCode, type: type?.toString(), body: parsed })
    return { status: response.statusCode, headers: response.headers, body: parsed }
  }
}
