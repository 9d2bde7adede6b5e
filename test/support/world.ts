import type { CallRequest } from '#calls/call.ts'
import { startEngine, type RunningEngine } from '#calls/start-engine.ts'
import type { CatalogDocument } from '#contracts/catalog.ts'
import { KEY_SCOPES, type BalanceClass, type ProviderKind } from '#contracts/names.ts'
import { createKey } from '#db/api-key.ts'
import { importCatalog } from '#db/catalog.ts'
import { connectDatabase, type Scope } from '#db/database.ts'
import { newId } from '#db/ids.ts'
import { json } from '#db/json.ts'
import { deposit, openEnvelope, type Funding } from '#db/ledger.ts'
import type { Database } from '#db/schema.ts'
import { createProvider } from '#providers/create-provider.ts'
import type { SandboxOptions } from '#sandbox/server.ts'
import { sql, type Kysely } from 'kysely'
import { onTestFinished } from 'vitest'
import { organisationOf } from './keys.ts'
import { createTestDatabase, type TestDatabase } from './postgres.ts'
import { useSandbox, type TestSandbox } from './sandbox.ts'

/** A funded tenant on a database of its own, a sandbox provider, and as many engines as a test wants. */
export interface World {
  readonly database: TestDatabase
  readonly db: Kysely<Database>
  readonly scope: Scope
  readonly sandbox: TestSandbox
  /** Another process would have its own: engines share nothing but the database. */
  startEngine(): Promise<RunningEngine>
  /** A run with an envelope, without a workflow. Amounts in nano of USD; `others` in whatever they say. */
  openRun(pockets: Partial<Record<BalanceClass, bigint>>, others?: readonly Funding[]): Promise<TestRun>
  /** What the provider began to answer, by call key. */
  providerAnswers(): Promise<ReadonlyMap<string, number>>
}

export interface TestRun {
  readonly runId: string
  readonly envelopeId: string
  request(path: string, question: string, change?: Partial<CallRequest>): CallRequest
}

const WALLET_NANO = 1_000_000_000_000n

/** Routes like the demo's: credit first, then a busy one, then a steady one. */
export const testCatalog: CatalogDocument = {
  models: [
    {
      name: 'research',
      routes: [route('economy', 'credit'), route('busy', 'direct'), route('steady', 'direct')],
    },
    { name: 'steady', routes: [route('steady', 'direct')] },
    { name: 'unpriced', routes: [route('small', 'direct')] },
  ],
  prices: [
    { provider: 'sandbox', upstreamModel: 'sandbox-economy', currency: 'USD', input: '0.10', output: '0.40' },
    { provider: 'sandbox', upstreamModel: 'sandbox-busy', currency: 'USD', input: '0.15', output: '0.60' },
    { provider: 'sandbox', upstreamModel: 'sandbox-steady', currency: 'USD', input: '0.40', output: '1.60' },
  ],
}

function route(name: string, balanceClass: BalanceClass): CatalogDocument['models'][number]['routes'][number] {
  return {
    name,
    provider: 'sandbox',
    upstreamModel: `sandbox-${name}`,
    balanceClass,
    currency: 'USD',
    contextTokens: 128_000,
    maxOutputTokens: 4_096,
    timeoutMs: 120_000,
  }
}

export async function createWorld(
  options: {
    readonly catalog?: CatalogDocument
    readonly database?: TestDatabase
    readonly sandbox?: SandboxOptions
    /** How the sandbox is spoken to. */
    readonly kind?: ProviderKind
  } = {},
): Promise<World> {
  const database = options.database ?? (await createTestDatabase())
  const scope = { projectId: newId(Date.now()) }
  const world = worldOn({ database, scope, sandbox: await useSandbox(options.sandbox) }, options.kind)
  await importCatalog(world.db, options.catalog ?? testCatalog)
  await fundTenant(world.db, scope)
  return world
}

/** A tenant that a database has already. */
export function worldOn(
  { database, scope, sandbox }: Pick<World, 'database' | 'scope' | 'sandbox'>,
  kind: ProviderKind = 'openai',
): World {
  const db = connectDatabase({ url: database.appUrl, maxConnections: 8 })
  onTestFinished(async () => {
    await db.destroy()
    await database.drop()
  })
  return {
    database,
    db,
    scope,
    sandbox,
    startEngine: () => startTestEngine(db, database.appUrl, { kind, baseUrl: sandbox.url }),
    openRun: (pockets, others = []) => openTestRun(db, scope, [...dollars(pockets), ...others]),
    async providerAnswers() {
      const answers = new Map<string, number>()
      for (const request of await requestsSeen(sandbox)) {
        if (request.begun) answers.set(request.callKey, (answers.get(request.callKey) ?? 0) + 1)
      }
      return answers
    },
  }
}

/** Another organisation with a project of its own, on the same database. */
export async function neighbourOf(world: World): Promise<World> {
  const scope = { projectId: newId(Date.now()) }
  await fundTenant(world.db, scope)
  return {
    ...world,
    scope,
    openRun: (pockets, others = []) => openTestRun(world.db, scope, [...dollars(pockets), ...others]),
  }
}

export interface SeenRequest {
  /** When it arrived, ISO 8601. */
  readonly at: string
  readonly callKey: string
  readonly attempt: number
  readonly model: string
  readonly status: number
  readonly begun: boolean
  readonly finished: boolean
  readonly usage: { readonly promptTokens: number; readonly completionTokens: number }
  /** USD, exact. */
  readonly billed: string
}

export async function requestsSeen(sandbox: TestSandbox): Promise<readonly SeenRequest[]> {
  // The log's shape is the sandbox's contract.
  // oxlint-disable-next-line typescript/consistent-type-assertions
  return (await sandbox.control('GET', '/log')) as readonly SeenRequest[]
}

async function fundTenant(db: Kysely<Database>, scope: Scope): Promise<void> {
  const organisationId = newId(Date.now())
  const walletId = newId(Date.now())
  await db.insertInto('organisation').values({ id: organisationId, name: 'test' }).execute()
  await db
    .insertInto('project')
    .values({ id: scope.projectId, organisation_id: organisationId, name: `p-${scope.projectId}` })
    .execute()
  await db.insertInto('wallet').values({ id: walletId, project_id: scope.projectId }).execute()
  for (const balanceClass of ['direct', 'credit'] as const) {
    await deposit(db, scope, {
      id: newId(Date.now()),
      walletId,
      balanceClass,
      currency: 'USD',
      amount: WALLET_NANO,
      reference: `first-${balanceClass}`,
    })
  }
}

async function startTestEngine(
  db: Kysely<Database>,
  databaseUrl: string,
  upstream: { readonly kind: ProviderKind; readonly baseUrl: string },
): Promise<RunningEngine> {
  const settings = { ...upstream, name: 'sandbox', apiKey: 'sandbox-key', promptCache: upstream.kind === 'anthropic' }
  const provider = createProvider(settings, { nowMs: () => Date.now() })
  const engine = await startEngine({ db, databaseUrl, kind: 'test', providers: [provider] })
  let stopped: Promise<void> | undefined
  const stop = () => (stopped ??= engine.stop())
  onTestFinished(stop)
  return { ...engine, stop }
}

function dollars(pockets: Partial<Record<BalanceClass, bigint>>): readonly Funding[] {
  return (['direct', 'credit'] as const).flatMap((balanceClass) => {
    const amount = pockets[balanceClass]
    return amount === undefined ? [] : [{ id: newId(Date.now()), balanceClass, currency: 'USD', amount }]
  })
}

/** A key of the project: envelopes are opened for nobody else's. */
export async function makeKey(
  db: Kysely<Database>,
  scope: Scope,
  secret: string = newId(Date.now()) + newId(Date.now()),
): Promise<string> {
  const organisationId = await organisationOf(db, scope)
  const rights = { ...scope, organisationId, name: 'test', scopes: KEY_SCOPES }
  return (await createKey(db, { ...rights, secret, nowMs: Date.now() })).id
}

async function openTestRun(db: Kysely<Database>, scope: Scope, fundings: readonly Funding[]): Promise<TestRun> {
  const runId = newId(Date.now())
  const envelopeId = newId(Date.now())
  const apiKeyId = await makeKey(db, scope)
  const refusal = await openEnvelope(db, scope, { envelopeId, runId, apiKeyId, fundings })
  if (refusal) throw new Error(`the envelope was refused: ${refusal.reason}`)
  await db
    .insertInto('run')
    .values({
      id: runId,
      project_id: scope.projectId,
      api_key_id: apiKeyId,
      envelope_id: envelopeId,
      agent: 'test',
      model: 'research',
      input: json({}),
      options: json({ onExhausted: 'pause', mayRepeat: 1, pauseDeadlineMs: 60_000 }),
      state: 'running',
      started_at: sql<Date>`clock_timestamp()`,
    })
    .execute()
  return {
    runId,
    envelopeId,
    request: (path, question, change = {}) => ({
      scope,
      runId,
      envelopeId,
      apiKeyId,
      path,
      model: 'steady',
      body: { messages: [{ role: 'user', content: question }], maxTokens: 200 },
      mayRepeat: 1,
      signal: new AbortController().signal,
      deadlineMs: Date.now() + 540_000,
      ...change,
    }),
  }
}
