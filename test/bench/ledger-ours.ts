import { startInstanceLease } from '#calls/instance-lease.ts'
import { connectDatabase } from '#db/database.ts'
import { createLedgerQueue, type LedgerQueue } from '#db/ledger-queue.ts'
import type { Database } from '#db/schema.ts'
import type { Kysely } from 'kysely'
import { drawEnvelopes, openCalls, type PreparedCall } from './ledger-calls.ts'
import type { Tenant } from './ledger-tenant.ts'
import type { Caller, Contender } from './load.ts'
import type { BenchDatabase } from './postgres.ts'

/** The connections of every contender, ours and the baselines. */
export const CONNECTIONS = 16
/** Calls that are opened when a contender runs out of them, which costs it time. */
const REFILL = 1_000

/** A process with a queue, as a worker has one: its lease is renewed while it works. */
export interface LedgerProcess {
  readonly db: Kysely<Database>
  readonly queue: LedgerQueue
  stop(): Promise<void>
}

export async function startLedgerProcess(database: BenchDatabase): Promise<LedgerProcess> {
  const db = connectDatabase({ url: database.appUrl, maxConnections: CONNECTIONS })
  const clocks = { nowMs: () => Date.now(), monotonicMs: () => performance.now() }
  const lease = await startInstanceLease({ db, kind: 'test', clocks })
  return {
    db,
    queue: createLedgerQueue({ db, instanceId: lease.id }),
    async stop() {
      await lease.stop()
      await db.destroy()
    },
  }
}

/** Reserves and settles through the queue: each is one operation. `bare`: settlements store no answer. */
export function oursOn(process: LedgerProcess, tenant: Tenant, { bare }: { readonly bare?: true } = {}): Contender {
  const stock: PreparedCall[] = []
  let refill: Promise<void> | undefined

  async function stockUp(calls: number): Promise<void> {
    const missing = drawEnvelopes(tenant, Math.max(0, calls - stock.length))
    const opened = await openCalls(process.db, tenant, missing)
    stock.push(...(bare ? opened.map(withoutAnswer) : opened))
  }

  /** Of the callers that find nothing left, one opens calls for all. */
  async function take(): Promise<PreparedCall> {
    for (;;) {
      const call = stock.pop()
      if (call) return call
      refill ??= stockUp(REFILL).finally(() => {
        refill = undefined
      })
      await refill
    }
  }

  return {
    name: 'ours',
    prepare: (operations) => stockUp(Math.ceil(operations / 2)),
    caller: () => callerOf(process.queue, take),
  }
}

function withoutAnswer(call: PreparedCall): PreparedCall {
  return { ...call, settlement: { ...call.settlement, answerId: null, answer: null } }
}

/** Makes the first call of every envelope: it borrows from the limits then, which is rare and is not what is measured. */
export async function callOnceEach(process: LedgerProcess, tenant: Tenant): Promise<void> {
  const calls = await openCalls(process.db, tenant, tenant.envelopes)
  await Promise.all(
    calls.map(async (call) => {
      const caller = callerOf(process.queue, async () => call)
      await caller.next()
      await caller.finish()
    }),
  )
}

function callerOf(queue: LedgerQueue, take: () => Promise<PreparedCall>): Caller {
  const { signal } = new AbortController()
  let held: PreparedCall | undefined

  async function settleHeld(call: PreparedCall): Promise<void> {
    const { verdict } = await queue.settle(call.pocket, call.settlement)
    if (verdict !== 'settled') throw new Error(`a settlement was answered ${verdict}`)
    held = undefined
  }

  return {
    async next() {
      if (held) return settleHeld(held)
      const call = await take()
      const { verdict } = await queue.reserve(call.pocket, call.hold, { signal })
      if (verdict !== 'granted') throw new Error(`a hold was answered ${verdict}`)
      held = call
    },
    async finish() {
      if (held) await settleHeld(held)
    },
  }
}
