import { importCatalog, priceInForce } from '#db/catalog.ts'
import { connectDatabase, type Scope } from '#db/database.ts'
import type { ReserveItem, SettleItem } from '#db/hold.ts'
import { deriveId, newId } from '#db/ids.ts'
import { registerInstance, renewLease } from '#db/instance.ts'
import { createLedgerQueue, type LedgerQueue } from '#db/ledger-queue.ts'
import { deposit, openEnvelope } from '#db/ledger.ts'
import type { Database } from '#db/schema.ts'
import { sql, type Kysely } from 'kysely'

export interface SeedSize {
  readonly calls: number
  readonly envelopes: number
}

interface Seed {
  readonly db: Kysely<Database>
  readonly scope: Scope
  readonly queue: LedgerQueue
  readonly priceId: string
}

interface Envelope {
  readonly id: string
  readonly runId: string
  readonly accountId: string
}

const WALLET_NANO = 900_000_000_000_000n
const HELD_NANO = 2_000_000n
/** 1,000 input tokens at 0.40 and 200 output tokens at 1.60 USD per million. */
const CHARGED_NANO = 720_000n
const USAGE = { input: 1_000, cachedInput: 0, output: 200 }
const BATCH = 64
const CALLERS = 12
const MODEL = { provider: 'sandbox', upstreamModel: 'large', currency: 'USD' }

/** Fills a ledger through the functions that serve calls: a hold and a capture with its answer for each call. */
export async function seedLedger(url: string, size: SeedSize): Promise<void> {
  const db = connectDatabase({ url, maxConnections: CALLERS })
  const scope = { projectId: newId(Date.now()) }
  const instanceId = newId(Date.now())
  await registerInstance(db, { id: instanceId, kind: 'test', host: 'seed', pid: process.pid })
  const lease = setInterval(() => void renewLease(db, instanceId), 1_000)
  try {
    await importCatalog(db, { models: [], prices: [{ ...MODEL, input: '0.40', output: '1.60' }] })
    const price = await priceInForce(db, MODEL)
    if (!price) throw new Error('the price is missing')
    const seed = { db, scope, queue: createLedgerQueue({ db, instanceId }), priceId: price.id }
    await seedCalls(seed, size)
  } finally {
    clearInterval(lease)
    await db.destroy()
  }
}

async function seedCalls(seed: Seed, size: SeedSize): Promise<void> {
  const envelopes = await openEnvelopes(seed, size)
  const rounds = Math.ceil(size.calls / BATCH)
  let next = 0
  const caller = async (): Promise<void> => {
    while (next < rounds) {
      const round = next
      next += 1
      const envelope = envelopes[round % envelopes.length]
      if (envelope) await callBatch(seed, envelope, round)
      if (round % 1_000 === 0) process.stderr.write(`${round * BATCH} calls\n`)
    }
  }
  await Promise.all(Array.from({ length: CALLERS }, caller))
}

async function openEnvelopes({ db, scope }: Seed, size: SeedSize): Promise<readonly Envelope[]> {
  const organisationId = newId(Date.now())
  const walletId = newId(Date.now())
  await db
    .insertInto('organisation')
    .values({ id: organisationId, name: `seed-${organisationId}` })
    .execute()
  const project = { id: scope.projectId, organisation_id: organisationId, name: 'seed' }
  await db.insertInto('project').values(project).execute()
  await db.insertInto('wallet').values({ id: walletId, project_id: scope.projectId }).execute()
  const money = { balanceClass: 'direct', currency: 'USD', amount: WALLET_NANO, reference: 'seed' } as const
  await deposit(db, scope, { id: newId(Date.now()), walletId, ...money })
  const amount = WALLET_NANO / BigInt(size.envelopes)
  for (let index = 0; index < size.envelopes; index += 1) {
    const [envelopeId, runId, id] = [newId(Date.now()), newId(Date.now()), newId(Date.now())]
    const fundings = [{ id, balanceClass: 'direct', currency: 'USD', amount } as const]
    const refusal = await openEnvelope(db, scope, { envelopeId, runId, apiKeyId: runId, fundings })
    if (refusal) throw new Error(refusal.reason)
  }
  const { rows } = await sql<Envelope>`
    select e.id, e.run_id as "runId", a.id as "accountId"
    from envelope e join account a on a.envelope_id = e.id where e.project_id = ${scope.projectId}`.execute(db)
  return rows
}

async function callBatch({ db, scope, queue, priceId }: Seed, envelope: Envelope, round: number): Promise<void> {
  const callIds = Array.from({ length: BATCH }, (_, index) => deriveId(envelope.runId, 'call', `${round}/${index}`))
  await sql`
    insert into call (id, project_id, run_id, envelope_id, api_key_id, path, digest, model, catalog_version, request_id)
    select id, ${scope.projectId}, ${envelope.runId}, ${envelope.id}, id, 'seed', '', 'seed', 1, id
    from unnest(${callIds}::uuid[]) as id`.execute(db)
  const pocket = { projectId: scope.projectId, accountId: envelope.accountId }
  const never = new AbortController().signal
  await Promise.all(
    callIds.map(async (callId) => {
      const { hold, resolution } = itemsOf({ callId, envelope, priceId })
      const granted = await queue.reserve(pocket, hold, { signal: never })
      if (granted.verdict !== 'granted') throw new Error(granted.verdict)
      const { verdict } = await queue.settle(pocket, resolution)
      if (verdict !== 'settled') throw new Error(verdict)
    }),
  )
}

function itemsOf(call: { readonly callId: string; readonly envelope: Envelope; readonly priceId: string }) {
  const { callId, envelope, priceId } = call
  const idOf = (phase: string): string => deriveId(envelope.runId, callId, phase)
  const plan = { route: 'large', ...MODEL, priceId, why: 'first', maxOutputTokens: 1_000, inputTokenBound: 1_200 }
  const hold: ReserveItem = {
    holdId: idOf('hold'),
    callId,
    attempt: 1,
    runId: envelope.runId,
    envelopeId: envelope.id,
    amount: HELD_NANO,
    tokens: 2_200n,
    owner: callId,
    plan,
  }
  const resolution: SettleItem = {
    holdId: hold.holdId,
    callId: hold.callId,
    attempt: hold.attempt,
    resolutionId: idOf('resolution'),
    overageId: idOf('overage'),
    debtId: idOf('debt'),
    amount: CHARGED_NANO,
    tokens: 1_200n,
    certainty: 'billed',
    outcome: 'answered',
    detail: null,
    usage: USAGE,
    answerId: idOf('answer'),
    answer: { text: 'The mill of Orvane burnt down in 1711 [p1].', finishReason: 'stop' },
  }
  return { hold, resolution }
}
