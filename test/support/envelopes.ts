import type { BalanceClass } from '#contracts/names.ts'
import type { Plan } from '#contracts/stored.ts'
import { openChild, standingPocket, type ChildRefusal } from '#db/envelope.ts'
import {
  findMoney,
  post,
  settle,
  type Fetched,
  type PocketKey,
  type ReserveItem,
  type ReserveVerdict,
  type SettleItem,
} from '#db/hold.ts'
import { connectDatabase } from '#db/database.ts'
import { newId } from '#db/ids.ts'
import { registerInstance } from '#db/instance.ts'
import { createLedgerQueue, type LedgerQueue } from '#db/ledger-queue.ts'
import { deposit } from '#db/ledger.ts'
import { plainPrices } from '#domain/pricing.ts'
import { sql } from 'kysely'
import { expect, onTestFinished } from 'vitest'
import { createWorld, makeKey, type World } from './world.ts'

/** A pocket and whom its calls belong to. */
export interface Purse {
  readonly envelopeId: string
  readonly runId: string | null
  readonly pocket: PocketKey
}

export interface Children {
  readonly amount?: bigint
  readonly cap?: bigint | null
  readonly kind?: 'child' | 'wrap_up'
  readonly runId?: string | null
}

/** A tenant whose calls are ledger items only: nothing is sent anywhere. */
export interface LedgerWorld extends World {
  readonly queue: LedgerQueue
  readonly keyId: string
  openRoot(amount: bigint): Promise<Purse>
  openBelow(parent: Purse, child: Children): Promise<Purse>
  refusalBelow(parent: Purse, child: Children): Promise<ChildRefusal | undefined>
  makeKey(): Promise<string>
  /** The direct pocket of a key's standing envelope. */
  standing(keyId: string, change?: { currency?: string; balanceClass?: BalanceClass }): Promise<Purse>
  /** A new call's first attempt, written nowhere but as a call. */
  itemOf(purse: Purse, amount: bigint): Promise<ReserveItem>
  /** Asks the hot path once, without fetching anything. */
  reserve(purse: Purse, item: ReserveItem): Promise<ReserveVerdict>
  find(purse: Purse, item: ReserveItem): Promise<Fetched>
  /** A hold, which must be granted from what is in the pocket. */
  hold(purse: Purse, amount: bigint): Promise<ReserveItem>
  /** A hold with everything it takes to get it, or the last word about it; waits for nothing. */
  get(purse: Purse, amount: bigint): Promise<{ readonly item: ReserveItem; readonly verdict: string }>
  settle(purse: Purse, item: ReserveItem, amount: bigint | null): Promise<void>
  /** Posted and held money of a pocket. */
  balance(purse: Purse): Promise<readonly [bigint, bigint]>
  gateOf(purse: Purse): Promise<readonly [string, string]>
  walletFree(currency: string, balanceClass?: BalanceClass): Promise<bigint>
  deposit(currency: string, amount: bigint, balanceClass?: BalanceClass): Promise<void>
  refusals(): Promise<readonly { bound: string; asked: bigint; free: bigint; cap: bigint | null }[]>
}

/** What a report reads of an attempt: nothing here is sent or priced. */
const PLAN: Plan = {
  route: 'steady',
  provider: 'sandbox',
  upstreamModel: 'sandbox-steady',
  balanceClass: 'direct',
  currency: 'USD',
  priceId: '00000000-0000-0000-0000-000000000000',
  prices: plainPrices({ inputNanoPerMillion: 0n, outputNanoPerMillion: 0n }),
  inputTokenBound: 1,
  maxOutputTokens: 1,
  timeoutMs: 1,
  why: 'first',
  after: null,
  skipped: [],
}

const AN_HOUR = sql`clock_timestamp() + interval '1 hour'`

export async function createLedgerWorld(options: { readonly connections?: number } = {}): Promise<LedgerWorld> {
  const world = await createWorld()
  const { scope } = world
  const { connections } = options
  const db = connections === undefined ? world.db : connectOwn(world, connections)
  const instanceId = newId(Date.now())
  await registerInstance(db, { id: instanceId, kind: 'test', host: 'test', pid: 1 })
  await sql`update instance set lease_until = ${AN_HOUR} where id = ${instanceId}`.execute(db)
  const queue = createLedgerQueue({ db, instanceId })
  const reserve = async (purse: Purse, item: ReserveItem) => {
    const { reserves } = await post(db, { instanceId, settles: [], reserves: [{ pocket: purse.pocket, item }] })
    return reserves[0]?.verdict ?? 'busy'
  }
  const purseOf = async (envelopeId: string, runId: string | null): Promise<Purse> => {
    const row = await db
      .selectFrom('account')
      .select('id')
      .where('envelope_id', '=', envelopeId)
      .executeTakeFirstOrThrow()
    return { envelopeId, runId, pocket: { projectId: scope.projectId, accountId: row.id } }
  }
  const open = async (parent: Purse, child: Children) => {
    const { kind = 'child', runId = null, amount = 0n, cap = null } = child
    const envelopeId = newId(Date.now())
    const carving = { id: newId(Date.now()), balanceClass: 'direct', currency: 'USD', amount, cap } as const
    const request = { parentId: parent.envelopeId, envelopeId, runId, kind, carvings: [carving] }
    return { envelopeId, refusal: await openChild(db, scope, request) }
  }
  const ledger: LedgerWorld = {
    ...world,
    db,
    queue,
    keyId: await makeKey(db, scope),
    makeKey: () => makeKey(db, scope),
    reserve,
    async openRoot(amount) {
      const { envelopeId, runId } = await world.openRun({ direct: amount })
      return purseOf(envelopeId, runId)
    },
    async openBelow(parent, child) {
      const { envelopeId, refusal } = await open(parent, child)
      if (refusal) throw new Error(`the child was refused: ${refusal.reason}`)
      return purseOf(envelopeId, child.runId ?? parent.runId)
    },
    refusalBelow: async (parent, child) => (await open(parent, child)).refusal,
    async standing(keyId, { currency = 'USD', balanceClass = 'direct' } = {}) {
      const pocket = await standingPocket(db, scope, { keyId, balanceClass, currency })
      if (!pocket.ok) throw new Error(`no standing envelope: ${pocket.reason}`)
      const key = { projectId: scope.projectId, accountId: pocket.accountId }
      return { envelopeId: pocket.envelopeId, runId: null, pocket: key }
    },
    async itemOf({ envelopeId, runId }, amount) {
      const callId = newId(Date.now())
      await sql`insert into call (id, project_id, run_id, envelope_id, api_key_id, path, digest, model, catalog_version,
          request_id)
        select ${callId}, ${scope.projectId}, ${runId}, id, api_key_id, 'test', '\\x00', 'steady', 1,
          ${newId(Date.now())} from envelope where id = ${envelopeId}`.execute(db)
      const id = () => newId(Date.now())
      return { holdId: id(), callId, attempt: 1, runId, envelopeId, amount, tokens: 1n, owner: id(), plan: PLAN }
    },
    find: (purse, item) => findMoney(db, purse.pocket, item),
    async hold(purse, amount) {
      const item = await ledger.itemOf(purse, amount)
      expect(await reserve(purse, item)).toBe('granted')
      return item
    },
    async get(purse, amount) {
      const item = await ledger.itemOf(purse, amount)
      for (let tries = 0; ; tries += 1) {
        const verdict = await reserve(purse, item)
        if (verdict !== 'short' || tries === 20) return { item, verdict }
        const found = await ledger.find(purse, item)
        if (found !== 'again') return { item, verdict: found }
      }
    },
    async settle(purse, item, amount) {
      const request = { item: settlement(item, amount), mode: 'owner' } as const
      expect((await settle(db, purse.pocket, request)).verdict).toBe('settled')
    },
    async balance({ pocket }) {
      const row = await db
        .selectFrom('account')
        .select(['posted_credit', 'posted_debit', 'pending_debit'])
        .where('id', '=', pocket.accountId)
        .executeTakeFirstOrThrow()
      return [row.posted_credit - row.posted_debit, row.pending_debit]
    },
    async gateOf({ pocket, envelopeId }) {
      const { rows } = await sql<{ envelope: string; pocket: string }>`
        select e.gate as envelope, a.gate as pocket from envelope e join account a on a.id = ${pocket.accountId}
        where e.id = ${envelopeId}`.execute(db)
      return [rows[0]?.envelope ?? '', rows[0]?.pocket ?? '']
    },
    async walletFree(currency, balanceClass = 'direct') {
      const { rows } = await sql<{ free: bigint }>`
        select posted_credit - posted_debit as free from account
        where kind = 'wallet' and currency = ${currency} and balance_class = ${balanceClass}`.execute(db)
      return rows[0]?.free ?? 0n
    },
    async deposit(currency, amount, balanceClass = 'direct') {
      const { id: walletId } = await db.selectFrom('wallet').select('id').executeTakeFirstOrThrow()
      const id = newId(Date.now())
      const request = { id, walletId, balanceClass, currency, amount, reference: id }
      expect((await deposit(db, scope, request)).verdict).toBe('deposited')
    },
    refusals: () => db.selectFrom('refusal').select(['bound', 'asked', 'free', 'cap']).orderBy('recorded_at').execute(),
  }
  return ledger
}

function connectOwn(world: World, maxConnections: number): World['db'] {
  const db = connectDatabase({ url: world.database.appUrl, maxConnections })
  onTestFinished(() => db.destroy())
  return db
}

export function settlement(item: ReserveItem, amount: bigint | null): SettleItem {
  return {
    holdId: item.holdId,
    callId: item.callId,
    attempt: item.attempt,
    resolutionId: newId(Date.now()),
    overageId: newId(Date.now()),
    debtId: newId(Date.now()),
    amount,
    tokens: null,
    certainty: amount === null ? null : 'estimated',
    outcome: 'aborted',
    detail: null,
    usage: null,
    answerId: null,
    answer: null,
  }
}
