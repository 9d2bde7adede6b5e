import type { CatalogRoute } from '#contracts/catalog.ts'
import { hashOf, type Caller } from '#db/api-key.ts'
import { importCatalog } from '#db/catalog.ts'
import { priceInForce, type Price } from '#db/price.ts'
import { connectDatabase, type Scope } from '#db/database.ts'
import { newId } from '#db/ids.ts'
import { json } from '#db/json.ts'
import { deposit, openEnvelope } from '#db/ledger.ts'
import { setLimit } from '#db/limit.ts'
import type { Database } from '#db/schema.ts'
import { invariant } from '#domain/invariant.ts'
import { sql, type Kysely } from 'kysely'
import type { BenchDatabase } from './postgres.ts'

/** A project with money, its envelopes, and limits that bind every call of its key. */
export interface Tenant {
  readonly scope: Scope
  readonly apiKeyId: string
  readonly catalogVersion: number
  readonly price: Price
  readonly envelopes: readonly BenchEnvelope[]
}

export interface BenchEnvelope {
  readonly runId: string
  readonly envelopeId: string
  readonly accountId: string
}

export const ROUTE = {
  name: 'steady',
  provider: 'sandbox',
  upstreamModel: 'sandbox-steady',
  balanceClass: 'direct',
  currency: 'USD',
  contextTokens: 128_000,
  maxOutputTokens: 4_096,
  timeoutMs: 120_000,
} as const

/** A million dollars, the most of one movement. */
const DEPOSIT_NANO = 1_000_000_000_000_000n
const DEPOSITS = 20
/** Enough for two million calls of one envelope. */
const ENVELOPE_NANO = 1_500_000_000_000n
/** The largest cap there is. */
const CAP = 1_000_000_000_000_000n
/** Envelopes are opened by so many at a time. */
const OPENERS = 4

/** Makes a tenant with money and limits, and no envelopes yet. `change`: of its one route; `secret`: of its key. */
export async function createTenant(
  database: BenchDatabase,
  { secret, ...change }: Partial<Pick<CatalogRoute, 'upstreamModel' | 'tokenizer'>> & { readonly secret?: string } = {},
): Promise<Tenant> {
  const db = connectDatabase({ url: database.appUrl, maxConnections: 1 })
  try {
    const route = { ...ROUTE, ...change }
    const catalogVersion = await importCatalog(db, {
      models: [{ name: ROUTE.name, routes: [route] }],
      prices: [
        {
          provider: route.provider,
          upstreamModel: route.upstreamModel,
          currency: 'USD',
          input: '0.40',
          output: '1.60',
        },
      ],
    })
    const price = await priceInForce(db, route)
    invariant(price, 'the price was just imported')
    return { ...(await createProject(db, secret)), catalogVersion, price, envelopes: [] }
  } finally {
    await db.destroy()
  }
}

/** The same tenant with so many new envelopes, each of a run, opened through the ledger's own function. */
export async function withEnvelopes(database: BenchDatabase, tenant: Tenant, count: number): Promise<Tenant> {
  const db = connectDatabase({ url: database.appUrl, maxConnections: OPENERS })
  try {
    const envelopes: BenchEnvelope[] = []
    await Promise.all(
      Array.from({ length: OPENERS }, async (_, opener) => {
        for (let index = opener; index < count; index += OPENERS) {
          envelopes.push(await openRun(db, tenant))
        }
      }),
    )
    return { ...tenant, envelopes }
  } finally {
    await db.destroy()
  }
}

/** The same tenant, whose every call comes from one envelope. */
export function withOneOf(tenant: Tenant): Tenant {
  return { ...tenant, envelopes: tenant.envelopes.slice(0, 1) }
}

type Owner = Pick<Tenant, 'scope' | 'apiKeyId'>

async function createProject(db: Kysely<Database>, secret: string | undefined): Promise<Owner> {
  const organisationId = newId(Date.now())
  const walletId = newId(Date.now())
  const apiKeyId = newId(Date.now())
  const scope = { projectId: newId(Date.now()) }
  await db.insertInto('organisation').values({ id: organisationId, name: 'bench' }).execute()
  await db
    .insertInto('project')
    .values({ id: scope.projectId, organisation_id: organisationId, name: 'bench' })
    .execute()
  await db
    .insertInto('api_key')
    .values({
      id: apiKeyId,
      organisation_id: organisationId,
      project_id: scope.projectId,
      name: 'bench',
      hint: 'bench',
      hash: secret === undefined ? Buffer.from(apiKeyId) : hashOf(secret),
    })
    .execute()
  await db.insertInto('wallet').values({ id: walletId, project_id: scope.projectId }).execute()
  for (let index = 0; index < DEPOSITS; index += 1) {
    await deposit(db, scope, {
      id: newId(Date.now()),
      walletId,
      balanceClass: 'direct',
      currency: 'USD',
      amount: DEPOSIT_NANO,
      reference: `bench-${index}`,
    })
  }
  await limit(db, { keyId: apiKeyId, organisationId, projectId: null }, { scope, apiKeyId })
  return { scope, apiKeyId }
}

/** Three limits that bind every call and are far from reached: each is leased, and counted by every operation. */
async function limit(db: Kysely<Database>, caller: Caller, { scope, apiKeyId }: Owner): Promise<void> {
  const ofMoney = { measure: 'money', currency: ROUTE.currency, period: 'month' } as const
  const ofCalls = { measure: 'calls', currency: null, period: 'day' } as const
  const ofTokens = { measure: 'tokens', currency: null, period: 'hour' } as const
  for (const each of [
    { scope: 'project', subjectId: scope.projectId, ...ofMoney },
    { scope: 'key', subjectId: apiKeyId, ...ofCalls },
    { scope: 'key', subjectId: apiKeyId, ...ofTokens },
  ] as const) {
    const limitOf = { id: newId(Date.now()), step: null, timeZone: 'UTC', cap: CAP, ...each }
    const verdict = await setLimit(db, caller, limitOf)
    invariant(verdict === 'set', `a limit was answered ${verdict}`)
  }
}

async function openRun(db: Kysely<Database>, { scope, apiKeyId }: Tenant): Promise<BenchEnvelope> {
  const runId = newId(Date.now())
  const envelopeId = newId(Date.now())
  return db.transaction().execute(async (trx) => {
    const refusal = await openEnvelope(trx, scope, {
      envelopeId,
      runId,
      apiKeyId,
      fundings: [
        {
          id: newId(Date.now()),
          balanceClass: ROUTE.balanceClass,
          currency: ROUTE.currency,
          amount: ENVELOPE_NANO,
        },
      ],
    })
    invariant(refusal === undefined, `the envelope was refused: ${refusal?.reason}`)
    await trx
      .insertInto('run')
      .values({
        id: runId,
        project_id: scope.projectId,
        api_key_id: apiKeyId,
        envelope_id: envelopeId,
        agent: 'bench',
        model: ROUTE.name,
        input: json({}),
        options: json({ onExhausted: 'pause', mayRepeat: 1, pauseDeadlineMs: 60_000 }),
        state: 'running',
        started_at: sql<Date>`clock_timestamp()`,
      })
      .execute()
    const pocket = await trx
      .selectFrom('account')
      .select('id')
      .where('envelope_id', '=', envelopeId)
      .executeTakeFirstOrThrow()
    return { runId, envelopeId, accountId: pocket.id }
  })
}
