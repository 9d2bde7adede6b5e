import { Problem } from '#contracts/codes.ts'
import { setTimeout as delay } from 'node:timers/promises'
import type { Kysely } from 'kysely'
import { isStoreUnavailable } from './database.ts'
import {
  hasToWait,
  post,
  settle,
  type OfPocket,
  type ReserveAnswer,
  type ReserveItem,
  type SettleAnswer,
  type SettleItem,
} from './hold.ts'
import type { Database } from './schema.ts'

/** What goes into one commit, of as many pockets as it may be. */
export interface Flight {
  readonly settles: readonly OfPocket<SettleItem>[]
  readonly reserves: readonly OfPocket<ReserveItem>[]
}

/** An answer, or what kept it from coming. */
export type Landed<Answer> = { readonly answer: Answer } | { readonly error: unknown }

export interface Landing {
  /** Whether it was one commit: then every call that it opens is open. */
  readonly isWhole: boolean
  readonly settles: readonly Landed<SettleAnswer>[]
  readonly reserves: readonly Landed<ReserveAnswer>[]
}

/** Another process may write the same attempt at the same moment: the next look finds it written. */
const MAX_COLLISIONS = 5
const COLLISION_PAUSE_MS = 5
const UNIQUE_VIOLATION = '23505'
const LEASES_CHANGED = 'PU002'

/**
 * Sends a batch as one commit. If an item makes it throw, they go one by one, so that a bad item fails alone. A database
 * that is away fails all at once: their callers repeat, and ids make that harmless.
 */
export async function fly(db: Kysely<Database>, instanceId: string, flight: Flight): Promise<Landing> {
  try {
    const posted = await postAgain(db, instanceId, flight)
    const settles: Landed<SettleAnswer>[] = []
    for (const [index, entry] of flight.settles.entries()) {
      const answer = posted.settles[index]
      settles.push(answer ? { answer } : await settleAlone(db, entry))
    }
    return { isWhole: true, settles, reserves: posted.reserves.map((answer) => ({ answer })) }
  } catch (error) {
    const landed = { error }
    if (isStoreUnavailable(error) && !(error instanceof Problem))
      return { isWhole: false, settles: flight.settles.map(() => landed), reserves: flight.reserves.map(() => landed) }
    return flyApart(db, instanceId, flight)
  }
}

/** Leases are counted on without having been locked first: what changed them meanwhile makes the batch go again. */
async function postAgain(db: Kysely<Database>, instanceId: string, flight: Flight): ReturnType<typeof post> {
  try {
    return await post(db, { instanceId, ...flight })
  } catch (error) {
    if (codeOf(error) !== LEASES_CHANGED) throw error
    return post(db, { instanceId, ...flight, again: true })
  }
}

async function flyApart(db: Kysely<Database>, instanceId: string, flight: Flight): Promise<Landing> {
  const settles: Landed<SettleAnswer>[] = []
  for (const entry of flight.settles) settles.push(await settleAlone(db, entry))
  const reserves: Landed<ReserveAnswer>[] = []
  // Behind one that waits for its pocket nobody is asked: the order holds here too.
  const waiting = new Set<string>()
  for (const entry of flight.reserves) {
    const { pocket, item } = entry
    const landed: Landed<ReserveAnswer> = waiting.has(pocket.accountId)
      ? { answer: { holdId: item.holdId, verdict: 'behind', replayed: false } }
      : await reserveAlone(db, instanceId, entry)
    if ('answer' in landed && hasToWait(landed.answer)) waiting.add(pocket.accountId)
    reserves.push(landed)
  }
  return { isWhole: false, settles, reserves }
}

function settleAlone(db: Kysely<Database>, { pocket, item }: OfPocket<SettleItem>): Promise<Landed<SettleAnswer>> {
  return attemptTo(() => settle(db, pocket, { item, mode: 'owner' }), { holdId: item.holdId, verdict: 'mismatch' })
}

function reserveAlone(
  db: Kysely<Database>,
  instanceId: string,
  entry: OfPocket<ReserveItem>,
): Promise<Landed<ReserveAnswer>> {
  return attemptTo(
    async () => {
      const [answer] = (await postAgain(db, instanceId, { settles: [], reserves: [entry] })).reserves
      if (!answer) throw new Error('the ledger gave no answer')
      return answer
    },
    { holdId: entry.item.holdId, verdict: 'mismatch', replayed: false },
  )
}

/** What collides on every look has an id that stands for something else: that is `mismatch`. */
async function attemptTo<Answer>(work: () => Promise<Answer>, mismatch: Answer): Promise<Landed<Answer>> {
  for (let collisions = 0; ; collisions += 1) {
    try {
      return { answer: await work() }
    } catch (error) {
      if (codeOf(error) !== UNIQUE_VIOLATION) return { error }
      if (collisions === MAX_COLLISIONS) return { answer: mismatch }
      await delay(COLLISION_PAUSE_MS)
    }
  }
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined
}
